# The operating system that a stand-in system boots. Tests that boot one replace this file.
throw "these tests boot no system"
