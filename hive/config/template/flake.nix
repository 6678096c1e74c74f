{
  description = "One hive agent";

  # Add flakes here, for instance an MCP server:
  #   inputs.example.url = "github:owner/example-mcp-server";
  # agent.nix then uses flakeInputs.example.packages.${pkgs.system}.default; commit flake.lock too.

  outputs =
    { self, ... }@inputs:
    {
      nixosModules.default = {
        imports = [ ./agent.nix ];
        _module.args.flakeInputs = builtins.removeAttrs inputs [ "self" ];
      };
    };
}
