{
  description = "hive: a daemon that runs a swarm of Claude Code agents";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { source = self; };
      });
      nixosModules.default = import ./nix/module.nix { packages = self.packages; };
    };
}
