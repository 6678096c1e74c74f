# Packages and services of this agent, as a NixOS module. Under the runtime `nixos` it may set any option; with Nix and
# another runtime only environment.systemPackages counts. Hosts without Nix ignore this file.
{ pkgs, flakeInputs, ... }:
{
  environment.systemPackages = [
    pkgs.git
    pkgs.python3
    # flakeInputs.example.packages.${pkgs.system}.default
  ];

  # systemd.services.example = {
  #   wantedBy = [ "multi-user.target" ];
  #   script = "exec /config/tools/example-server";
  # };
}
