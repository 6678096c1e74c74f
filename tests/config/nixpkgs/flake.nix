{
  outputs = { self }: {
    legacyPackages.x86_64-linux = import ./pkgs.nix { system = "x86_64-linux"; };
    lib.nixosSystem = import ./system.nix { pkgs = self.legacyPackages.x86_64-linux; };
  };
}
