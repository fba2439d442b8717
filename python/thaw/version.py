"""The version of this package, by itself so that packaging can read it without importing the rest."""

VERSION = "0.1.0"
