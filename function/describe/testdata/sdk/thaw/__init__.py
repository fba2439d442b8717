"""Stands in for the SDK: an app's file says by itself what its description is, in DOCUMENT."""
