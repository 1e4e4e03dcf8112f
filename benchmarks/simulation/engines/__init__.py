"""One module for each simulator: a process that trains when the driver asks for rounds."""
