# hive as a Python application, with the programs that it runs on its PATH.
{
  lib,
  python3Packages,
  bubblewrap,
  git,
  source,
}:
let
  # The one place that holds the version.
  version = builtins.head (
    builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile (source + "/hive/__init__.py"))
  );
in
python3Packages.buildPythonApplication {
  pname = "hive";
  inherit version;
  pyproject = true;
  src = source;
  build-system = [ python3Packages.setuptools ];
  # The same list as in pyproject.toml, which a test compares.
  dependencies = with python3Packages; [
    apsw
    blinker
    claude-agent-sdk
    httpx
    jinja2
    litestar
    msgspec
    platformdirs
    ptyprocess
    pykka
    rich
    structlog
    typer
    uvicorn
    watchfiles
    zstandard
  ];
  makeWrapperArgs = [
    "--prefix"
    "PATH"
    ":"
    (lib.makeBinPath [
      bubblewrap
      git
    ])
  ];
  # The tests start containers, which the build's sandbox forbids.
  doCheck = false;
  pythonImportsCheck = [ "hive" ];
  meta = {
    description = "A daemon that runs a swarm of Claude Code agents";
    mainProgram = "hive";
    platforms = lib.platforms.linux;
  };
}
