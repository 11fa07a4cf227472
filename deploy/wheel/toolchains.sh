# Compilers for other platforms on a Debian 12: Debian's Rust, which has the source of std, beside the machine's own, and
# zig, which compiles and links C for all targets.
#
# To be sourced. Whoever does has set `place`, a folder that exists, for the tools and their logs, and has functions
# `say WORDS`, and `unable WORDS`, which ends the script.

debian_packages=(rustc-web cargo-web rust-web-src)
zig_wheels=(ziglang==0.17.0 cargo-zigbuild==0.24.0)

# Runs a command with its output in a log; shows the log if it fails.
quietly() {
    local log=$place/$1.log
    shift
    "$@" >"$log" 2>&1 || { grep -vE "^ +(Compiling|Checking|Downloaded) " "$log" | tail -n 60 >&2; return 1; }
}

# Debian's Rust, beside the machine's own: std for other targets is built from its source.
install_rust() {
    if dpkg-query -W -f '${db:Status-Status}\n' "${debian_packages[@]}" 2>/dev/null | grep -c '^installed$' |
        grep -qx "${#debian_packages[@]}"; then
        return
    fi
    command -v apt-get >/dev/null || unable "no apt-get here to install ${debian_packages[*]}"
    [ "$(id -u)" = 0 ] || unable "not root: apt-get install ${debian_packages[*]}"
    say "installing ${debian_packages[*]} (apt, about 20 s)"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt apt-get -o DPkg::Lock::Timeout=300 update || unable "apt-get update failed"
    quietly apt apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove \
        "${debian_packages[@]}" || unable "apt-get install failed"
}

# Our `rust-version` against Debian's, which differs between its releases and their updates.
check_version() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(/usr/bin/rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
        unable "Debian's Rust is $found, we need $wanted"
}

install_zig() {
    if [ "$(cat "$place/zig/wheels" 2>/dev/null)" = "${zig_wheels[*]}" ]; then
        return
    fi
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || unable "python3 has no venv"
        say "installing python3-venv (apt)"
        quietly apt apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends python3-venv ||
            unable "apt-get install python3-venv failed"
    fi
    say "installing ${zig_wheels[*]} (PyPI, about 10 s)"
    rm -rf "$place/zig"
    quietly zig python3 -m venv "$place/zig" || unable "python3 -m venv failed"
    quietly zig "$place/zig/bin/pip" install --disable-pip-version-check "${zig_wheels[@]}" ||
        unable "pip install failed"
    echo "${zig_wheels[*]}" >"$place/zig/wheels"
}
