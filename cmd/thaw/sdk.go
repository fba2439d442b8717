package main

import (
	"errors"
	"io/fs"
	"os"

	"thaw/cmd/internal/cli"
	"thaw/python"
)

// embeddedSDK are the files of the Python SDK that this program carries.
var embeddedSDK fs.FS = python.Files

// sdkFiles returns the SDK to use: that of $THAW_SDK, for those who work on it, or the one that the program carries.
func sdkFiles() (fs.FS, error) {
	if dir := os.Getenv(cli.EnvSDK); dir != "" {
		if err := isFolder(dir); err != nil {
			return nil, err
		}
		return os.DirFS(dir), nil
	}
	if embeddedSDK == nil {
		return nil, &cli.Error{Code: cli.Missing, Err: errors.New("this thaw was built without the Python SDK"), Hint: cli.EnvSDK + " names a folder with the package thaw"}
	}
	return embeddedSDK, nil
}
