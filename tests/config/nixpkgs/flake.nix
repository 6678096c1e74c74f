{
  outputs =
    { self }:
    {
      legacyPackages.x86_64-linux = import ./pkgs.nix { system = "x86_64-linux"; };
      packages.x86_64-linux.tree = import ./tree.nix;
      lib.nixosSystem = import ./system.nix {
        pkgs = self.legacyPackages.x86_64-linux;
        tree = self.packages.x86_64-linux.tree;
      };
    };
}
