"""Repositories, proposals, builders, the forge: real git, real nix, real HTTP."""
