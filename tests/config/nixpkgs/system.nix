# A stand-in for NixOS: evaluates modules (imports, arguments, merged definitions, declared options) and builds a system
# that boots. Its operating system is Debian's, from the derivation `tree`; what modules set is real.
{ pkgs, tree }:
{ system, modules }:
let
  # Declared options. A set below one of the open ones may have any names.
  declared = {
    boot.isContainer = false;
    environment.systemPackages = [ ];
    networking.hostName = "";
    system.stateVersion = "";
    systemd.services = { };
    users.users = { };
    users.groups = { };
  };
  open = [ "systemd.services" "users.users" "users.groups" ];

  lib = {
    optionalAttrs = condition: set: if condition then set else { };
    mkDefault = value: value;
  };

  isSet = value: builtins.isAttrs value && !(value ? type && value.type == "derivation");

  # Definitions of one option by several modules: sets and lists add up, anything else must agree.
  merged =
    path: a: b:
    if isSet a && isSet b then
      a // builtins.mapAttrs (name: value: if a ? ${name} then merged "${path}.${name}" a.${name} value else value) b
    else if builtins.isList a && builtins.isList b then
      a ++ b
    else if a == b then
      a
    else
      throw "The option `${path}' has conflicting definition values.";

  # The same set, once every option in it is known to be declared.
  checked =
    path: known: set:
    builtins.foldl' (
      all: name:
      let
        here = if path == "" then name else "${path}.${name}";
        isLeaf = builtins.elem here open || !(isSet known.${name});
      in
      if !(known ? ${name}) then
        throw "The option `${here}' does not exist."
      else if isLeaf then
        all
      else
        builtins.seq (checked here known.${name} set.${name}) all
    ) set (builtins.attrNames set);

  load = module: if builtins.isPath module || builtins.isString module then import module else module;
  expand =
    module:
    let
      loaded = load module;
      body = if builtins.isFunction loaded then loaded args else loaded;
    in
    [ body ] ++ builtins.concatMap expand (body.imports or [ ]);
  bodies = builtins.concatMap expand modules;
  # Arguments come from modules written as plain sets only, as _module.args of a function could depend on itself.
  given = builtins.foldl' (
    all: module: all // (if builtins.isAttrs module then module._module.args or { } else { })
  ) { } modules;
  args = given // { inherit pkgs lib config; options = declared; };

  definitions = map (body: removeAttrs (body.config or body) [ "imports" "_module" "config" ]) bodies;
  evaluated = builtins.foldl' (all: one: merged "" all (checked "" declared one)) declared' definitions;
  # Scalars have no default, so that the first definition does not conflict with one.
  declared' = {
    boot = { };
    environment.systemPackages = [ ];
    networking = { };
    system = { };
    systemd.services = { };
    users = { users = { }; groups = { }; };
  };

  path = pkgs.buildEnv { name = "system-path"; paths = evaluated.environment.systemPackages; };
  config = evaluated // {
    system = evaluated.system // { inherit path; build.toplevel = toplevel; };
    _module.args = args;
  };

  unit = name: service: ''
    [Unit]
    Description=${service.description or name}
    [Service]
    ${if service ? script then "ExecStart=/bin/sh ${builtins.toFile "${name}-start" service.script}" else ""}
    Environment=PATH=${path}/bin:/usr/bin:/bin
    ${builtins.concatStringsSep "\n" (
      map (key: "${key}=${toString service.serviceConfig.${key}}") (builtins.attrNames (service.serviceConfig or { }))
    )}
  '';
  services = evaluated.systemd.services;
  installUnits = builtins.concatStringsSep "\n" (
    map (
      name:
      "cat > $out/units/${name}.service << 'END_OF_UNIT'\n${unit name services.${name}}END_OF_UNIT\n"
      + builtins.concatStringsSep "\n" (
        map (target: "mkdir -p $out/units/${target}.wants; ln -s ../${name}.service $out/units/${target}.wants/") (
          services.${name}.wantedBy or [ ]
        )
      )
    ) (builtins.attrNames services)
  );
  users = evaluated.users.users;
  groups = evaluated.users.groups;
  gid = group: toString groups.${group}.gid;
  passwd = builtins.concatStringsSep "" (
    map (
      name:
      let
        user = users.${name};
      in
      "${name}:x:${toString user.uid}:${gid user.group}::${user.home or "/"}:/bin/sh\n"
    ) (builtins.attrNames users)
  );
  group = builtins.concatStringsSep "" (map (name: "${name}:x:${gid name}:\n") (builtins.attrNames groups));

  init = ''
    #!${tree}/usr/bin/busybox sh
    # The activation: an empty root becomes the system, then systemd takes over.
    PATH=/none
    for applet in mkdir mount ln cp cat chmod; do eval "$applet() { ${tree}/usr/bin/busybox $applet \"\$@\"; }"; done
    mkdir -p /usr /etc /var /run
    mount -o bind ${tree}/usr /usr
    for name in bin sbin lib lib64; do if [ ! -e /$name ]; then ln -s usr/$name /$name; fi; done
    cp -a ${tree}/etc/. /etc/
    cp -a ${tree}/var/. /var/
    chmod 600 /etc/shadow /etc/gshadow
    cat ${builtins.toFile "passwd" passwd} >> /etc/passwd
    cat ${builtins.toFile "group" group} >> /etc/group
    printf '127.0.0.1 localhost\n' > /etc/hosts
    : > /etc/resolv.conf
    cp -a SYSTEM/units/. /etc/systemd/system/
    ln -sfn SYSTEM /run/current-system
    exec /usr/lib/systemd/systemd "$@"
  '';
  toplevel = derivation {
    name = "nixos-system-${evaluated.networking.hostName}";
    inherit system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    inherit init;
    passAsFile = [ "init" ]; # builtins.toFile takes no references to derivations.
    args = [
      "-ec"
      ''
        mkdir -p $out/units
        sed "s|SYSTEM|$out|g" $initPath > $out/init
        chmod 755 $out/init
        ln -s ${path} $out/sw
        ${installUnits}
      ''
    ];
  };
in
{ inherit config; }
