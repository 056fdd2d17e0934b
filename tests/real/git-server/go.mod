module muster.dev/tests/real/git-server

go 1.26
