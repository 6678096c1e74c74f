# Packages and services of this agent, as a NixOS module. Hosts without Nix ignore this file.
{ pkgs, flakeInputs, ... }:
{
  environment.systemPackages = [
    pkgs.git
    pkgs.python3
    # flakeInputs.example.packages.${pkgs.system}.default
  ];
}
