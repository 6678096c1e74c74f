# A stand-in for NixOS's module system: imports, _module.args, and lists that add up.
{ pkgs }:
{ system, modules }:
let
  load = module: if builtins.isPath module || builtins.isString module then import module else module;
  expand = module:
    let
      loaded = load module;
      body = if builtins.isFunction loaded then loaded args else loaded;
    in
    [ body ] ++ builtins.concatMap expand (body.imports or [ ]);
  bodies = builtins.concatMap expand modules;
  # Arguments come from modules written as plain sets only, as _module.args of a function could depend on itself.
  given = builtins.foldl' (all: module: all // (if builtins.isAttrs module then argsOf module else { })) { } modules;
  argsOf = module: (module._module.args or { });
  args = given // { inherit pkgs; config = config; lib = { }; };
  packages = builtins.concatMap (body: body.environment.systemPackages or [ ]) bodies;
  config = {
    environment.systemPackages = packages;
    system.path = pkgs.buildEnv { name = "system-path"; paths = packages; };
    _module.args = args;
  };
in
{ inherit config; }
