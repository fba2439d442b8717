package blob

// For the tests of crashes.
var NewDirOn = newDir
