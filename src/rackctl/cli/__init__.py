"""The command line: options, commands, rendering, and errors into exit codes. The only importer of click."""
