{ lib, system }:
let
  package = name: derivation { inherit name system; builder = "/bin/sh"; };
  pkgs = rec {
    inherit lib;
    bubblewrap = package "bubblewrap";
    git = package "git";
    nix = package "nix";
    systemd = package "systemd";
    stdenv.hostPlatform = { inherit system; };
    formats.toml = _: {
      type = "toml";
      generate = name: value: builtins.toFile name (builtins.toJSON value);
    };
    callPackage = path: given:
      let make = import path; in
      make ((builtins.intersectAttrs (builtins.functionArgs make) pkgs) // given);
    # Any name is a package, so that the list of dependencies can be read back.
    python3Packages = lib.genAttrs (builtins.fromJSON (builtins.readFile ./python.json)) package // {
      setuptools = package "setuptools";
      buildPythonApplication = given: package "hive-${given.version}" // {
        inherit (given) pname version meta pythonImportsCheck;
        dependencies = map (one: one.name) given.dependencies;
        path = given.makeWrapperArgs;
      };
    };
  };
in
pkgs
