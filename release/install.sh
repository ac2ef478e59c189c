#!/bin/sh
# Installs mlxlm for one user, without root:
#
#   curl -fsSL https://github.com/mlxlm/mlxlm/releases/latest/download/install.sh | sh
#   … | sh -s -- --cuda            the build for NVIDIA GPUs
#   … | sh -s -- --version 0.1.0   a certain version
#   … | sh -s -- --dir DIR         to another folder than ~/.local/bin
#   … | sh -s -- --uninstall
set -eu

releases=https://github.com/mlxlm/mlxlm/releases
say() { printf '%s\n' "$*" >&2; }
fail() {
  say "install: $*"
  exit 1
}

[ -n "${HOME:-}" ] || fail "HOME is not set"
data=${XDG_DATA_HOME:-$HOME/.local/share}
list=$data/mlxlm/installed.txt

uninstall() {
  [ -f "$list" ] || fail "nothing is installed: $list is missing"
  while IFS= read -r file; do
    rm -f "$file"
    say "removed $file"
  done <"$list"
  rm -f "$list"
  rmdir "$data/mlxlm" 2>/dev/null || true
  say "Models and caches stay: \${XDG_CACHE_HOME:-~/.cache}/mlxlm and the Hugging Face cache."
}

# The platform's name in the archives, or the reason why there is none.
platform() {
  case $(uname -s)-$(uname -m) in
  Darwin-arm64) echo darwin-arm64 ;;
  Darwin-x86_64)
    # Rosetta pretends to be an Intel Mac.
    [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || echo 0)" = 1 ] || fail "mlxlm runs on Apple silicon only, this Mac has an Intel processor"
    echo darwin-arm64
    ;;
  Linux-x86_64) echo "linux-x64$variant" ;;
  Linux-aarch64) echo linux-arm64 ;;
  *) fail "there is no build for $(uname -s) on $(uname -m): only for macOS on arm64, and Linux on x64 and arm64" ;;
  esac
}

check_libc() {
  [ "$(uname -s)" = Linux ] || return 0
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || fail "mlxlm needs glibc 2.35 or newer, and this Linux has another C library (musl?)"
  version=${libc#glibc }
  minor=${version#*.}
  if [ "${version%%.*}" -eq 2 ] && [ "${minor%%.*}" -lt 35 ]; then
    fail "mlxlm needs glibc 2.35 or newer (Ubuntu 22.04, Debian 12, RHEL 10), and this Linux has $version"
  fi
}

download() {
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --output "$2" "$1" || fail "cannot download $1"
  elif command -v wget >/dev/null; then
    wget --quiet --output-document="$2" "$1" || fail "cannot download $1"
  else
    fail "curl or wget is needed"
  fi
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# Puts a file in its place at once, and notes it for --uninstall.
place() {
  mkdir -p "$(dirname "$3")"
  cp "$2" "$3.new.$$"
  chmod "$1" "$3.new.$$"
  mv -f "$3.new.$$" "$3"
  printf '%s\n' "$3" >>"$temporary/installed"
}

variant=
version=
folder=
while [ $# -gt 0 ]; do
  case $1 in
  --cuda) variant=-cuda ;;
  --version | --dir | --from)
    [ $# -gt 1 ] || fail "$1 needs a value"
    case $1 in
    --version) version=${2#v} ;;
    --dir) folder=$2 ;;
    --from) from=$2 ;;
    esac
    shift
    ;;
  --uninstall)
    uninstall
    exit
    ;;
  *) fail "there is no option $1: --cuda, --version VERSION, --dir DIR, --from URL, --uninstall" ;;
  esac
  shift
done

folder=${folder:-$HOME/.local/bin}
case $folder in
/*) ;;
*) folder=$PWD/$folder ;;
esac
from=${from:-$releases/${version:+download/v}${version:-latest/download}}

name=$(platform)
check_libc
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT TERM

download "$from/SHA256SUMS" "$temporary/SHA256SUMS"
archive=$(sed -n "s/^[0-9a-f]\{64\}  \(mlxlm-[0-9][^/]*-$name\.tar\.gz\)\$/\1/p" "$temporary/SHA256SUMS")
[ -n "$archive" ] || fail "the release at $from has no archive for $name"
expected=$(sed -n "s/^\([0-9a-f]\{64\}\)  $archive\$/\1/p" "$temporary/SHA256SUMS")
say "downloading $from/$archive"
download "$from/$archive" "$temporary/$archive"
actual=$(sha256 "$temporary/$archive")
[ "$actual" = "$expected" ] || fail "the hash of $archive is $actual, but SHA256SUMS says $expected: nothing was installed"

tar -xzf "$temporary/$archive" -C "$temporary"
unpacked=$temporary/${archive%.tar.gz}
"$unpacked/mlxlm" --version >/dev/null || fail "the program does not start here: nothing was installed"

place 755 "$unpacked/mlxlm" "$folder/mlxlm"
place 644 "$unpacked/completions/mlxlm.bash" "$data/bash-completion/completions/mlxlm"
place 644 "$unpacked/completions/mlxlm.fish" "$data/fish/vendor_completions.d/mlxlm.fish"
place 644 "$unpacked/completions/_mlxlm" "$data/zsh/site-functions/_mlxlm"
for page in "$unpacked"/man/*.[1-9]; do
  place 644 "$page" "$data/man/man${page##*.}/${page##*/}"
done
place 644 "$unpacked/THIRD-PARTY-LICENSES.txt" "$data/mlxlm/THIRD-PARTY-LICENSES.txt"
# What an older version installed and this one has no more goes; the list itself comes last.
if [ -f "$list" ]; then
  grep -vxFf "$temporary/installed" "$list" | while IFS= read -r old; do rm -f "$old"; done || true
fi
cp "$temporary/installed" "$list"

say "installed $("$folder/mlxlm" --version) as $folder/mlxlm; completions and man pages below $data"
case :$PATH: in
*:"$folder":*) ;;
*) say "$folder is not on your PATH: add this line to your shell's profile
  export PATH=\"$folder:\$PATH\"" ;;
esac
say "Try it: mlxlm generate --model demo --prompt 'What is 27 + 58?'"
