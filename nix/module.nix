# services.hive: the daemon as a systemd service of NixOS.
{ packages }:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.hive;
  toml = pkgs.formats.toml { };
  settings = toml.generate "hive.toml" cfg.settings;
in
{
  options.services.hive = {
    enable = lib.mkEnableOption "hive, a daemon that runs a swarm of Claude Code agents";

    package = lib.mkOption {
      type = lib.types.package;
      default = packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "hive.packages.\${system}.default";
      description = "The package that provides the `hive` command.";
    };

    stateDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/hive";
      description = "The state folder: the log, the agents' repositories and their state.";
    };

    settings = lib.mkOption {
      type = toml.type;
      default = { };
      example = {
        claude.api_key_file = "anthropic.key";
        limits.memory_mb = 4096;
      };
      description = ''
        The content of `hive.toml`. It holds no secret: it names files in the state folder that do, with mode 0600.
        Without any setting, `hive.toml` in the state folder is left as it is.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    systemd.services.hive = {
      description = "hive, a daemon that runs a swarm of Claude Code agents";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "local-fs.target"
      ];
      # A change of the configuration restarts the daemon alone; its agents go on and are found again.
      restartIfChanged = true;
      path = [
        pkgs.nix
        pkgs.systemd
      ];
      preStart = lib.optionalString (cfg.settings != { }) ''
        install -D -m 0600 ${settings} ${cfg.stateDir}/hive.toml
      '';
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/hive up --state ${cfg.stateDir} --run /run/hive";
        KillMode = "process";
        SendSIGKILL = true;
        Restart = "on-failure";
        RestartSec = "2s";
        TimeoutStartSec = "120s";
        TimeoutStopSec = "60s";
        Delegate = true;
        LimitNOFILE = 1048576;
        UMask = "0022";
        NoNewPrivileges = true;
        ProtectSystem = "full";
        ProtectKernelModules = true;
        ProtectKernelLogs = true;
        ProtectClock = true;
        RestrictRealtime = true;
        LockPersonality = true;
        SystemCallArchitectures = "native";
      };
    };
  };
}
