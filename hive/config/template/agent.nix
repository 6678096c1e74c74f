# Packages and services of this agent, a NixOS module. Hosts without Nix do not read it.
{ pkgs, flakeInputs, ... }:
{
  environment.systemPackages = [
    pkgs.git
    pkgs.python3
    # flakeInputs.example.packages.${pkgs.system}.default
  ];
}
