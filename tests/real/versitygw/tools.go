//go:build tools

// Package tools names the program that is built here, so that go.mod keeps its requirements.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
