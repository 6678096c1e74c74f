let
  option = value: { _option = true; } // value;
in
rec {
  genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
  optionalString = condition: text: if condition then text else "";
  makeBinPath = packages: builtins.concatStringsSep ":" (map (package: "${package}/bin") packages);
  literalExpression = text: text;
  mkOption = option;
  mkEnableOption = description: option { default = false; inherit description; };
  mkIf = condition: content: if condition then content else { };
  platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
  types = { package = "package"; path = "path"; };

  # Evaluates one module: `given` over the defaults of its options.
  evalModule = { module, pkgs, given }:
    let
      defaults = options: builtins.mapAttrs (name: value: if value ? _option then value.default else defaults value) options;
      known = defaults loaded.options;
      merged = old: new: builtins.mapAttrs (name: value:
        if !(new ? ${name}) then value
        else if builtins.isAttrs value && !(value ? type) && name != "settings" && name != "package" then merged value new.${name}
        else new.${name}) old;
      unknown = builtins.filter (name: !(known.services.hive ? ${name})) (builtins.attrNames given.services.hive);
      config = if unknown == [ ] then merged known given else throw "unknown options: ${toString unknown}";
      loaded = module { inherit config pkgs; lib = import ./lib.nix; };
    in
    loaded.config;
}
