{ system }:
let
  program = name: derivation {
    inherit name system;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "mkdir -p $out/bin; echo '#!/bin/sh' > $out/bin/${name}; echo 'echo ${name}' >> $out/bin/${name}; chmod +x $out/bin/${name}" ];
  };
in
{
  inherit system program;
  git = program "git";
  python3 = program "python3";
  buildEnv = { name, paths }: derivation {
    inherit name system paths;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" "mkdir -p $out/bin; for p in $paths; do for f in $p/bin/*; do ln -s $f $out/bin/; done; done" ];
  };
}
