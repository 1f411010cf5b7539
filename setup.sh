#!/usr/bin/env bash
# Installs acc from this clone and demonstrates it: a demo instance is created, answers, is put to sleep and is woken by a plain
# HTTP request. You can run setup.sh again: it upgrades the program and leaves config and data as they are.
set -euo pipefail
# Other users must be able to read the installed files and enter the folders, whatever the umask of the caller.
umask 022
# `su` without a dash leaves out the folders of nginx and useradd.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

usage() {
  cat <<'TEXT'
usage: ./setup.sh [options]

As root on Debian or Ubuntu: nginx and supervisord (installed with apt if missing), program in /usr/local/bin, config in
/etc/acc/config.toml, data in /var/lib/acc; it can be reached from the network. As another user, or with --builtin: no root and
no apt, acc's own edge and supervisor, everything under the user's data folder, a port above 1024 that only this machine reaches.

  --builtin        acc's own edge and supervisor, in the user's folders, also as root
  --prefix DIR     everything under DIR, with its own config; no systemd units
  --user NAME      as root: instances run as this user (default: `acc`, a system user that is created if missing); only for a new
                   config. In root's own folders (--builtin without --prefix) instances run as root
  --port N         listen on this port (default: 80 for root if free, else 8080 or the next free one); only for a new config
  --binary FILE    install this program instead of building it
  --no-demo        install and boot without the demo
  --uninstall      halt acc and remove the installed files; data is kept
  --purge-data     with --uninstall: also remove the data of all instances, a changed config, and the system users that
                   setup.sh created (with --prefix they are kept); other files stay, also your own models
  --packages P...  install these Debian packages without starting or changing any service, then end (for the tests)
TEXT
}

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
usage_error() {
  usage >&2
  printf '\nerror: %s\n' "$1" >&2
  exit 2
}
have() { command -v "$1" >/dev/null 2>&1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
edge_kind='' prefix='' user_given='' port='' port_given=no binary='' demo=yes action=install purge=no packages=()
while [ $# -gt 0 ]; do
  case $1 in
    --builtin) edge_kind=builtin ;;
    --prefix) [ $# -ge 2 ] || usage_error "--prefix needs a folder"; prefix=$2; shift ;;
    --user) [ $# -ge 2 ] || usage_error "--user needs a name"; user_given=$2; shift ;;
    --port) [ $# -ge 2 ] || usage_error "--port needs a number"; port=$2 port_given=yes; shift ;;
    --binary) [ $# -ge 2 ] || usage_error "--binary needs a file"; binary=$2; shift ;;
    --no-demo) demo=no ;;
    --uninstall) action=uninstall ;;
    --purge-data) purge=yes ;;
    --packages) shift; action=packages; packages=("$@"); break ;;
    -h | --help) usage; exit 0 ;;
    *) usage_error "unknown option \`$1\`" ;;
  esac
  shift
done
# Ports for instances (`ports.range` in the config): the edge cannot use one of them.
instance_ports_first=20000 instance_ports_last=29999
check_port_number() {
  case $port in '' | *[!0-9]* | ??????*) usage_error "not a port: \`$port\`" ;; esac
  port=$((10#$port))
  { [ "$port" -ge 1 ] && [ "$port" -le 65535 ]; } || usage_error "not a port: \`$port\` (from 1 to 65535)"
  if [ "$port" -ge $instance_ports_first ] && [ "$port" -le $instance_ports_last ]; then
    usage_error "port $port is one of those for instances ($instance_ports_first-$instance_ports_last): choose another"
  fi
}
[ $port_given = no ] || check_port_number
[ "$purge" = no ] || [ "$action" = uninstall ] || usage_error "--purge-data goes with --uninstall"
[ -z "$binary" ] || [ -x "$binary" ] || die "\`$binary\` is not a program"

# Files to remove at the end, also after an error.
temporary=()
clean_up() { [ ${#temporary[@]} -eq 0 ] || rm -f -- "${temporary[@]}"; }
trap clean_up EXIT

# ---- places ---------------------------------------------------------------------------------------------------------------

decide_places() {
  local root=no
  [ "$(id -u)" -ne 0 ] || root=yes
  [ -n "$edge_kind" ] || { [ $root = yes ] && edge_kind=nginx || edge_kind=builtin; }
  [ -z "$user_given" ] || [ $root = yes ] || usage_error "--user needs root: everything runs as you"
  system=no user='' share=''
  if [ -n "$prefix" ]; then
    [ $root = no ] || user=${user_given:-acc}
    prefix=$(realpath -m -- "$prefix")
    bin=$prefix/bin/acc conf=$prefix/etc/config.toml home_dir=$prefix/home run_dir=$prefix/run
    # The path of a unix socket has at most 108 bytes: with the longest instance name, 29 are left for the run folder.
    [ ${#run_dir} -le 29 ] || run_dir=/tmp/acc-$(printf '%s' "$prefix" | cksum | cut -d' ' -f1)
  elif [ "$edge_kind" = nginx ] && [ $root = yes ]; then
    system=yes user=${user_given:-acc} share=/usr/local/share
    bin=/usr/local/bin/acc conf=/etc/acc/config.toml home_dir=/var/lib/acc run_dir=/run/acc
  else
    : "${HOME:?the home folder is not known: set HOME}"
    case $user_given in '' | root) ;; *) usage_error "user \`$user_given\` could not reach root's own folders: add --prefix DIR" ;; esac
    bin=$HOME/.local/bin/acc conf=${XDG_CONFIG_HOME:-$HOME/.config}/acc/config.toml
    share=${XDG_DATA_HOME:-$HOME/.local/share}
    home_dir=$share/acc
    run_dir=${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/acc}
    [ -n "$run_dir" ] && [ ${#run_dir} -le 29 ] || run_dir=/tmp/acc-$(id -u)
  fi
  # acc itself runs as root, so for root no user is set.
  [ "$user" != root ] || user=''
  # The command to show to the user: the short form only if acc finds this config by itself.
  acc_typed="$bin --config $conf"
  if [ $system = yes ]; then
    acc_typed=acc
  elif [ -z "$prefix" ] && [ ! -e /etc/acc/config.toml ]; then
    acc_typed=$bin
    case ":$PATH:" in *":$(dirname "$bin"):"*) acc_typed=acc ;; esac
  fi
}

# setup.sh itself always names the config, and ignores the environment variables of acc.
acc() { env -u ACC_HOME -u ACC_RUN "$bin" --config "$conf" "$@"; }

systemd_runs() { [ -d /run/systemd/system ] && have systemctl; }

# ---- Debian packages, without touching any service ------------------------------------------------------------------------

# Debian starts the service of a new package at once and enables it for the next boot. acc runs its own nginx and supervisord, so
# both are prevented. The service of a package that was installed before is not changed.
install_packages() {
  local missing=() p policy=/usr/sbin/policy-rc.d
  for p in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null)" = 'ii ' ] || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]} with apt"
  export DEBIAN_FRONTEND=noninteractive
  local ours=no ok=yes output
  output=$(mktemp)
  temporary+=("$output")
  if [ ! -e $policy ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    temporary+=("$policy")
  fi
  { apt-get -qq update && apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install "${missing[@]}"; } >"$output" 2>&1 || ok=no
  [ $ours = no ] || rm -f $policy
  [ $ok = yes ] || { tail -n 15 "$output" >&2; die "apt could not install ${missing[*]}" "see the end of its output above"; }
  for p in "${missing[@]}"; do
    case $p in nginx* | supervisor) disable_service "${p%%-*}" ;; esac
  done
}

# Disables the service of a package just installed, so that it does not take port 80 at the next boot.
disable_service() {
  if have systemctl; then
    systemctl -q disable "$1" >/dev/null 2>&1 || true
  elif have update-rc.d; then
    update-rc.d "$1" disable >/dev/null 2>&1 || true
  fi
}

need_packages() {
  local missing=()
  have nginx || missing+=(nginx)
  have supervisord || missing+=(supervisor)
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || die "nginx or supervisord is missing and this is not Debian or Ubuntu" "install both, or use --builtin"
  install_packages "${missing[@]}"
}

# ---- the program ----------------------------------------------------------------------------------------------------------

# Prints the folder of a usable cargo; with sudo, cargo is often in the home of the user who called sudo.
find_cargo() {
  local dir owner_home=''
  [ -z "${SUDO_USER:-}" ] || owner_home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
  if have cargo; then dirname "$(command -v cargo)"; return; fi
  for dir in "${CARGO_HOME:-${HOME:-/root}/.cargo}/bin" "$owner_home/.cargo/bin" /usr/local/cargo/bin; do
    if [ -x "$dir/cargo" ]; then printf '%s\n' "$dir"; return; fi
  done
  return 1
}

build() {
  [ -z "$binary" ] || return 0
  local cargo_dir as=()
  cargo_dir=$(find_cargo) || die "no Rust toolchain found" "run \`curl https://sh.rustup.rs -sSf | sh -s -- -y\`, then run setup.sh again"
  if ! have cc; then
    { [ "$(id -u)" -eq 0 ] && have apt-get; } || die "no C compiler found (cc): the linker and SQLite need one" "run \`apt install gcc libc6-dev\`"
    install_packages gcc libc6-dev
  fi
  say "building acc (a few minutes the first time)"
  # With sudo, build as the owner of the clone, so that target/ does not fill with root's files.
  if [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$(stat -c %U "$here")" = "$SUDO_USER" ] && have runuser; then
    as=(runuser -u "$SUDO_USER" --)
  fi
  # With the musl target the launcher starts a little faster. Without it (no network) everything else is the same.
  [ ! -x "$cargo_dir/rustup" ] ||
    (cd "$here" && "${as[@]}" env PATH="$cargo_dir:$PATH" timeout 60 rustup -q target add "$(uname -m)-unknown-linux-musl") >/dev/null 2>&1 ||
    note "the toolchain has no target for musl: the launcher is built for glibc"
  (cd "$here" && "${as[@]}" env PATH="$cargo_dir:$PATH" cargo build --release --locked) || die "the build failed" "see its last lines above"
  binary=${CARGO_TARGET_DIR:-$here/target}/release/acc
}

install_program() {
  upgraded=no
  if [ -e "$bin" ] && cmp -s "$binary" "$bin"; then
    say "program: already installed ($bin)"
    return
  fi
  [ ! -e "$bin" ] || upgraded=yes
  say "program: $bin"
  mkdir -p "$(dirname "$bin")"
  install -m 755 "$binary" "$bin.new"
  mv -f "$bin.new" "$bin"
}

# ---- config ---------------------------------------------------------------------------------------------------------------

# Does a program listen on this TCP port? Reads the table of the kernel, so no tool is needed.
port_taken() {
  local hex
  hex=$(printf ':%04X ' "$1")
  awk -v port="$hex" '$4 == "0A" && index($2 " ", port) { found = 1 } END { exit !found }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

choose_port() {
  local p lowest
  if [ $port_given = yes ]; then
    port_taken "$port" && die "port $port is taken by another program" "choose another with --port"
    lowest=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || echo 1024)
    [ "$(id -u)" -eq 0 ] || [ "$port" -ge "$lowest" ] || die "port $port needs root" "choose $lowest or higher with --port"
    return 0
  fi
  if [ $system = yes ] && ! port_taken 80; then
    port=80
    return
  fi
  for p in $(seq 8080 8999); do
    if ! port_taken "$p"; then port=$p; return; fi
  done
  die "no free port between 8080 and 8999" "choose one with --port"
}

# The addresses in the existing config.
configured_listen() {
  local listen=''
  if [ -x "$bin" ]; then listen=$(acc config show 2>/dev/null | sed -n 's/^listen = //p' | head -n 1) || true; fi
  [ -n "$listen" ] || listen=$(awk '/^\[/ { section = $1 } section == "[edge]" && /^listen *=/ { sub(/^[^=]*= */, ""); print; exit }' "$conf")
  printf '%s\n' "${listen:-[\"127.0.0.1:8080\"]}"
}

# Any user could create a folder such as /tmp/acc-UID first. A user who can write to it, or can replace a folder above it, can
# replace acc's files. So all of these folders must belong to root or to the caller; above them, a sticky folder such as /tmp is
# allowed. acc itself repeats this check.
check_owner() {
  local owner mode path part exchange
  for path in "$1" "$(realpath -m -- "$1")"; do
    part=$path
    while :; do
      if [ -e "$part" ] || [ -L "$part" ]; then
        read -r owner mode < <(stat -c '%u %a' -- "$part")
        exchange=''
        [ "$part" = "$path" ] || exchange=", and its writers could replace \`$1\`"
        [ "$owner" = 0 ] || [ "$owner" = "$(id -u)" ] ||
          die "\`$part\` belongs to user $owner, but acc would have to trust its files$exchange" \
            "remove it as root, or \`chown $(id -u) $part\`, or use another --prefix DIR"
        if [ ! -L "$part" ] && ((8#$mode & 8#22)) && { [ "$part" = "$path" ] || ! ((8#$mode & 8#1000)); }; then
          die "\`$part\` can be written by others (mode $mode), but acc would have to trust its files$exchange" "run \`chmod go-w $part\` if it is yours"
        fi
      fi
      [ "$part" != / ] || break
      part=$(dirname -- "$part")
    done
  done
}

# Instances run as their own user, which needs search permission for every folder above the ones of the instances.
check_passage() {
  local dir=$1 mode owner
  while [ "$dir" != / ]; do
    dir=$(dirname "$dir")
    [ -d "$dir" ] || continue
    read -r owner mode < <(stat -c '%U %a' -- "$dir")
    ((8#$mode & 1)) || [ "$owner" = "$user" ] ||
      die "instances run as user \`$user\`, which cannot pass through \`$dir\` (mode $mode)" \
        "choose another --prefix, such as /opt/acc; or \`chmod o+x $dir\`; or --user root, if every instance may do what root may"
  done
}

# All checks that can refuse the installation, before anything is written or installed.
check_first() {
  local listen dir
  if [ -n "$user" ] && [ ! -e "$conf" ]; then
    check_passage "$home_dir"
    check_passage "$run_dir"
    getent passwd "$user" >/dev/null || have useradd || die "there is no user \`$user\` and no useradd to create it" "name an existing user with --user"
  fi
  for dir in "$home_dir" "$run_dir" "$(dirname -- "$bin")" "$(dirname -- "$conf")"; do check_owner "$dir"; done
  if [ ! -e "$conf" ]; then
    choose_port
  elif [ $port_given = yes ]; then
    listen=$(configured_listen)
    case $listen in
      *":$port\""*) ;;
      *)
        die "\`$conf\` exists and acc listens on $listen: --port $port would have no effect" \
          "to change it, edit \`listen\` in $conf, then \`$acc_typed halt\` and \`$acc_typed boot\`"
        ;;
    esac
  fi
}

# Writes the new config to a file beside the final one, and lets acc check it, or else lets acc check the existing config.
prepare_config() {
  local listen=127.0.0.1:$port supervisor=supervisord
  if [ -e "$conf" ]; then
    ACC_HOME='' ACC_RUN='' "$binary" -q --config "$conf" config check ||
      die "the existing config is invalid; nothing was changed" "edit $conf, then run setup.sh again"
    user=$(ACC_HOME='' ACC_RUN='' "$binary" --config "$conf" config show | sed -n 's/^user = "\(.*\)"$/\1/p' | head -n 1)
    [ -z "$user_given" ] || [ "$user_given" = "${user:-root}" ] ||
      die "\`$conf\` exists and instances run as \`${user:-root}\`: --user $user_given would have no effect" "edit \`user\` in $conf"
    return
  fi
  [ $system = no ] || listen=0.0.0.0:$port
  [ "$edge_kind" = nginx ] || supervisor=builtin
  new_config=$(mktemp)
  temporary+=("$new_config")
  # The example shows every key, commented out; the chosen values replace those lines.
  awk -v home="$home_dir" -v run="$run_dir" -v user="$user" -v edge="$edge_kind" -v listen="$listen" -v supervisor="$supervisor" '
    /^\[/ { section = $0; gsub(/[][]/, "", section) }
    section == "" && /^#home =/ { $0 = "home = \"" home "\"" }
    section == "" && /^#run =/ { $0 = "run = \"" run "\"" }
    section == "" && /^#user =/ && user != "" { $0 = "user = \"" user "\"" }
    section == "edge" && /^#kind =/ { $0 = "kind = \"" edge "\"" }
    section == "edge" && /^# The addresses it listens on/ && listen ~ /^0\.0\.0\.0:/ {
      print "# The addresses it listens on. 0.0.0.0 is every address of this machine: acc can be reached from the network."
      port = substr(listen, 9)
      $0 = "# For this machine only: listen = [\"127.0.0.1:" port "\"], then `acc halt` and `acc boot`."
    }
    section == "edge" && /^#listen =/ { $0 = "listen = [\"" listen "\"]" }
    section == "supervisor" && /^#kind =/ { $0 = "kind = \"" supervisor "\"" }
    { print }
  ' "$here/config.example.toml" >"$new_config"
  ACC_HOME='' ACC_RUN='' "$binary" -q --config "$new_config" config check || die "these folders cannot be used; nothing was changed" "choose another --prefix"
}

install_config() {
  if [ -e "$conf" ]; then
    say "config: already exists ($conf)"
    return
  fi
  say "config: $conf"
  mkdir -p "$(dirname "$conf")"
  install -m 644 "$new_config" "$conf.new"
  mv -f "$conf.new" "$conf"
  {
    echo "# The SHA-256 of $(basename "$conf") as setup.sh wrote it: as long as it agrees, --uninstall removes that file too."
    sha256sum "$conf" | cut -d' ' -f1
  } >"$conf.installed"
}

# Is the config as setup.sh installed it?
config_is_unchanged() { [ "$(sha256sum "$conf" | cut -d' ' -f1)" = "$(grep -v '^#' "$conf.installed" 2>/dev/null)" ]; }

make_user() {
  local home=$home_dir
  [ "$(id -u)" -eq 0 ] || return 0
  if [ -z "$user" ]; then
    say "instances run as root"
    note "with --prefix DIR they get their own user; in an existing config set \`user\` ($conf), then halt and boot"
  elif getent passwd "$user" >/dev/null; then
    say "user: $user, already exists (instances run as this user)"
  else
    say "system user: $user (instances run as this user)"
    # With --prefix the user may serve several installations, so its home belongs to none of them.
    [ $system = yes ] || home=/nonexistent
    useradd --system --user-group --home-dir "$home" --no-create-home --shell /usr/sbin/nologin "$user"
  fi
  make_edge_user
}

# nginx's workers run as their own user, so that no instance can stop them; acc finds this user by its name (`edge.user`).
edge_user=acc-edge
make_edge_user() {
  [ "$edge_kind" = nginx ] && [ -n "$user" ] || return 0
  getent passwd $edge_user >/dev/null && return
  have useradd || { note "useradd is missing, so the system user $edge_user was not created: \`acc doctor\` shows which user nginx's workers run as"; return; }
  say "system user: $edge_user (nginx's workers run as this user)"
  useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin $edge_user
}

# Completions and manual pages, in the folders that shells and `man` search; not with --prefix, because these do not search there.
completions=()
decide_completions() {
  [ -n "$share" ] || return 0
  completions=("bash $share/bash-completion/completions/acc" "fish $share/fish/vendor_completions.d/acc.fish")
  [ $system = no ] || completions+=("zsh $share/zsh/site-functions/_acc")
}

install_completions() {
  local each shell file
  [ -n "$share" ] || return 0
  say "completions and manual pages: below $share"
  for each in "${completions[@]}"; do
    shell=${each%% *} file=${each#* }
    mkdir -p "$(dirname "$file")"
    "$bin" completions "$shell" >"$file.new"
    mv -f "$file.new" "$file"
  done
  "$bin" -q man --dir "$share/man/man1"
}

# The value of a key at the top of the config in force.
setting() { acc config show | sed -n "s/^$1 = \"\\(.*\\)\"\$/\\1/p" | head -n 1; }

# ---- boot -----------------------------------------------------------------------------------------------------------------

install_units() {
  local unit
  say "systemd: acc.service and acc-monitor.timer"
  for unit in acc.service acc.slice acc.socket acc-monitor.service acc-monitor.timer; do
    install -m 644 "$here/systemd/$unit" "/etc/systemd/system/$unit"
  done
  systemctl daemon-reload
  systemctl -q enable --now acc.service acc-monitor.timer
  upgrade_running
}

# The new program replaces the running server: no instance is put to sleep and no request is lost.
upgrade_running() {
  if [ $upgraded = yes ] && [ -S "$run_dir/control.sock" ]; then
    say "upgrading the running acc"
    acc boot
  fi
}

boot() {
  acc -q config check || die "the config is invalid" "edit $conf; \`$acc_typed config check\` lists all errors"
  home_dir=$(setting home) run_dir=$(setting run)
  if [ $system = yes ] && systemd_runs; then
    install_units
  else
    say "booting"
    acc boot
  fi
  local left=300
  until [ -S "$run_dir/control.sock" ] || [ $left -eq 0 ]; do
    sleep 0.1
    left=$((left - 1))
  done
  [ -S "$run_dir/control.sock" ] || die "acc did not start within 30 s" "see the logs in $home_dir/log, or run \`$acc_typed doctor\`"
}

tell_network() {
  local listen
  listen=$(configured_listen)
  case $listen in
    *'"0.0.0.0:'* | *'"[::]:'*)
      say "reachable from the network: acc listens on $listen"
      local last=${listen##*:}
      note "for this machine only: listen = [\"127.0.0.1:${last%%\"*}\"] in $conf, then \`$acc_typed halt\` and \`$acc_typed boot\`"
      ;;
  esac
}

# ---- the demonstration ----------------------------------------------------------------------------------------------------

# Fetches http://HOST:PORT/ with curl, or with bash alone if curl is not installed. If curl cannot resolve the host, it requests
# 127.0.0.1 with that host.
fetch() {
  local host=$1 port=$2
  if have curl; then
    curl -fsS --noproxy '*' --max-time 60 "http://$host:$port/" 2>/dev/null ||
      curl -fsS --noproxy '*' --max-time 60 -H "Host: $host:$port" "http://127.0.0.1:$port/"
    return
  fi
  local status line
  exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
  printf 'GET / HTTP/1.0\r\nHost: %s:%s\r\n\r\n' "$host" "$port" >&3
  IFS= read -r -t 60 status <&3 || return 1
  while IFS= read -r -t 60 line <&3 && [ "$line" != $'\r' ]; do :; done
  cat <&3
  exec 3>&-
  case $status in *' 200 '*) ;; *) return 1 ;; esac
}

# Milliseconds since a fixed point in time.
now_ms() { echo $(($(date +%s%N) / 1000000)); }

show_demo() {
  local host port before took answer
  if ! acc info demo >/dev/null 2>&1; then
    say "creating the demo instance: $acc_typed create demo --model hello"
    acc create demo --model hello
  else
    say "demo instance: already exists"
    acc start demo
  fi
  url=$(acc info demo --json | sed -n 's/.*"url": *"\([^"]*\)".*/\1/p' | head -n 1)
  host=${url#http://} host=${host%%/*} port=80
  case $host in *:*) port=${host##*:} host=${host%%:*} ;; esac
  say "sending a request: curl $url"
  answer=$(fetch "$host" "$port") || die "the demo instance did not answer at $url" "see \`$acc_typed info demo\` and \`$acc_typed logs demo\`"
  note "${answer//$'\n'/, }"
  say "putting it to sleep: $acc_typed stop demo"
  acc stop demo
  say "waking it by a plain HTTP request: curl $url"
  before=$(now_ms)
  answer=$(fetch "$host" "$port") || die "the demo instance was not woken by a request to $url" "see \`$acc_typed events demo\` and \`$acc_typed logs demo\`"
  took=$(($(now_ms) - before))
  note "${answer//$'\n'/, }"
  say "asleep to answered in $took ms"
}

# Prints a command and its purpose: on one line if both fit, else on two.
hint() {
  if [ ${#acc_typed} -le 3 ]; then
    printf '  %-38s %s\n' "$1" "$2"
  else
    printf '  %s\n      %s\n' "$1" "$2"
  fi
}

what_next() {
  echo
  if [ "$demo" = yes ]; then echo "Open $url in a browser, or type:"; else echo "Type:"; fi
  hint "$acc_typed list" "all instances, awake or asleep"
  hint "$acc_typed create shop --model python-http" "another instance, from another model"
  hint "$acc_typed events" "wakes and sleeps, with their reasons"
  hint "$acc_typed doctor" "checks of this host"
  if [ -n "$prefix" ]; then
    echo "To type just \`acc\` in this shell, as in the README:"
    printf '  export ACC_CONFIG=%q\n  export PATH=%q:%s\n' "$conf" "$prefix/bin" "\$PATH"
  fi
  if [ $system = yes ] && systemd_runs; then
    hint "systemctl status acc" "acc is started at boot"
  else
    cat <<TEXT
To start it at boot (\`crontab -e\`):
  @reboot $bin --config $conf boot
TEXT
  fi
}

# ---- uninstall ------------------------------------------------------------------------------------------------------------

# Prints the processes of this installation, one per line. They are found by their arguments and folders, because the config may
# be missing.
who_runs() {
  local dir pid line cwd
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    [ "$pid" != $$ ] || continue
    line=$(tr '\0' ' ' 2>/dev/null <"$dir/cmdline") || continue
    cwd=$(readlink "$dir/cwd" 2>/dev/null) || cwd=''
    case "$line|$cwd/" in
      *"--config $conf server"* | *"$home_dir/"*"|"* | *"$run_dir/"*"|"* | *"|$home_dir/instances/"*) printf '%s %s\n' "$pid" "$line" ;;
    esac
  done 2>/dev/null
}

# If acc cannot read the config, its two folders are searched for in the text of the config.
folders_by_eye() {
  local found
  [ -r "$conf" ] || return 0
  found=$(sed -n 's/^home *= *"\(\/[^"]*\)".*/\1/p' "$conf" | head -n 1)
  [ -z "$found" ] || home_dir=$found
  found=$(sed -n 's/^run *= *"\(\/[^"]*\)".*/\1/p' "$conf" | head -n 1)
  [ -z "$found" ] || run_dir=$found
}

end_units() {
  if [ $system = yes ] && systemd_runs; then
    systemctl -q disable --now acc-monitor.timer acc.socket acc.service 2>/dev/null || true
  fi
}

halt_all() {
  local configured why='' runs
  if [ ! -e "$conf" ]; then
    why="there is no config \`$conf\`"
  elif [ ! -x "$bin" ]; then
    why="there is no program \`$bin\`"
    folders_by_eye
  elif ! acc -q config check 2>/dev/null; then
    why="the config \`$conf\` is wrong"
    folders_by_eye
  else
    if configured=$(setting home) && [ -n "$configured" ]; then home_dir=$configured; fi
    if configured=$(setting run) && [ -n "$configured" ]; then run_dir=$configured; fi
    [ $system = yes ] || user=$(setting user)
    end_units
    say "halting"
    acc halt && return 0
    why="acc could not be halted"
  fi
  # acc could not halt. That is no problem if nothing runs.
  runs=$(who_runs)
  [ -z "$runs" ] || {
    printf '%s\n' "$runs" >&2
    die "$why, and the processes above still run; nothing was removed" "fix $conf (\`$acc_typed config check\` lists all errors) or end them, then run setup.sh again"
  }
  end_units
  note "$why; no process runs, so there is nothing to halt"
}

left=() kept=()
# Removes a file or folder; those that cannot be removed are listed at the end.
remove() {
  local why
  why=$(rm -rf -- "$1" 2>&1) || left+=("$1 (${why##*: })")
}

# Removes a folder if it is empty; a folder with files that acc did not create stays and is listed.
remove_empty() {
  [ -d "$1" ] && [ ! -L "$1" ] || return 0
  rmdir -- "$1" 2>/dev/null || kept+=("$1 (there is more in it than acc has made)")
}

# Removes the unchanged files of the shipped models: acc keeps checksums of the files it wrote, in the format of sha256sum.
remove_models() {
  local model hash file
  for model in "$1"/*/; do
    model=${model%/}
    if [ ! -f "$model/.shipped" ] || [ -L "$model" ]; then continue; fi
    while IFS=' ' read -r hash file; do
      case /$file/ in */../*) continue ;; esac
      [ -f "$model/$file" ] && [ "$(sha256sum <"$model/$file")" = "$hash  -" ] && remove "$model/$file"
    done <"$model/.shipped"
    remove "$model/.shipped"
    # Removes empty folders, the deepest first.
    find "$model" -depth -type d -exec rmdir -- {} + 2>/dev/null
  done
  rmdir -- "$1" 2>/dev/null || [ ! -d "$1" ] || kept+=("$1 (models of your own)")
}

# Removes the files and folders that acc created in its home, by name, and nothing else.
remove_home() {
  local home=${1:?} name
  for name in "$home"/log/{server,supervisord,nginx,nginx-error}.log{,.*}; do remove "$name"; done
  for name in nginx.conf reload.due tmp; do remove "$home/nginx/$name"; done
  for name in supervisord.conf loaded launch programs services; do remove "$home/supervisor/$name"; done
  for name in "$home"/supervisor/service_*.pid; do remove "$name"; done
  for name in "$home"/nginx/*.next "$home"/*/*.new-*; do remove "$name"; done
  for name in log/access log/failed trash instances acc.db-wal acc.db-shm acc.db-journal; do remove "$home/$name"; done
  for name in booted open-files owner.lock server.lock; do remove "$home/$name"; done
  for name in log nginx supervisor; do remove_empty "$home/$name"; done
  remove_models "$home/models"
  # Last, because this file marks the folder as acc's.
  remove "$home/acc.db"
  remove_empty "$home"
}

# Removes the files and folders that acc created in the run folder, by name, and nothing else.
remove_run() {
  local run=${1:?} name
  for name in gate sock pid sent notify trash; do remove "$run/$name"; done
  for name in booted in-force.toml server.lock owner.next supervisord.lock control.sock wake.sock supervisor.sock supervisord.pid nginx.pid open-files cgroup; do
    remove "$run/$name"
  done
  for name in "$run"/*.new "$run"/*.new-*; do remove "$name"; done
  remove "$run/owner.lock"
  remove_empty "$run"
}

remove_completions() {
  local each page
  for each in ${completions[@]+"${completions[@]}"}; do
    remove "${each#* }"
    rmdir -p --ignore-fail-on-non-empty "$(dirname "${each#* }")" 2>/dev/null
  done
  [ -n "$share" ] || return 0
  for page in "$share"/man/man1/acc.1 "$share"/man/man1/acc-*.1; do
    if [ -e "$page" ] && grep -qi '^\.TH acc' "$page"; then remove "$page"; fi
  done
  [ $system = yes ] || rmdir "$share/man/man1" "$share/man" 2>/dev/null
}

uninstall() {
  local unit
  halt_all
  # From here on an error does not end the uninstall halfway: failures are listed at the end.
  set +e
  if [ $system = yes ]; then
    for unit in acc.service acc.slice acc.socket acc-monitor.service acc-monitor.timer; do
      remove "/etc/systemd/system/${unit:?}"
    done
    [ ! -d /etc/systemd/system/acc.service.d ] || kept+=("/etc/systemd/system/acc.service.d (settings of your own)")
    ! systemd_runs || systemctl daemon-reload
  fi
  remove_completions
  remove "$bin"
  if [ -e "$conf" ] && { [ "$purge" = yes ] || config_is_unchanged; }; then remove "$conf"; fi
  if [ -e "$conf" ]; then kept+=("$conf (changed since it was installed; --uninstall --purge-data removes it)"); else remove "$conf.installed"; fi
  # Only in folders that acc created, never in a mistyped one, and only the files that acc created there.
  if [ -e "$run_dir/owner.lock" ] || [ -d "$run_dir/gate" ]; then remove_run "$run_dir"; fi
  if [ "$purge" = no ]; then
    [ ! -d "$home_dir" ] || kept+=("$home_dir (data of the instances; --uninstall --purge-data removes it)")
  elif [ -f "$home_dir/acc.db" ]; then
    remove_home "$home_dir"
    # Only a user that setup.sh created has its home in this folder.
    if [ $system = yes ] && [ -n "$user" ] && [ "$(getent passwd "$user" | cut -d: -f6)" = "$home_dir" ]; then
      userdel "$user" 2>/dev/null || kept+=("the system user $user")
    fi
    if [ $system = yes ] && getent passwd $edge_user >/dev/null; then userdel $edge_user 2>/dev/null || kept+=("the system user $edge_user"); fi
  elif [ -d "$home_dir" ]; then
    kept+=("$home_dir (there is no acc.db in it, so it is not known to be acc's)")
  fi
  if [ $system = yes ] && [ "$purge" = no ] && [ -n "$user" ] && getent passwd "$user" >/dev/null; then
    kept+=("the system user $user (owns that data)")
  elif [ $system = no ] && [ "$user" = acc ] && getent passwd acc >/dev/null; then
    kept+=("the system user acc (\`userdel acc\` if no other installation needs it)")
  fi
  if { [ $system = no ] || [ "$purge" = no ]; } && [ "$edge_kind" = nginx ] && getent passwd $edge_user >/dev/null; then
    kept+=("the system user $edge_user (\`userdel $edge_user\` if no other installation needs it)")
  fi
  rmdir "$(dirname "$conf")" 2>/dev/null
  [ -z "$prefix" ] || rmdir "$prefix/bin" "$prefix/etc" "$prefix" 2>/dev/null
  [ $system = no ] || ! have nginx || kept+=("the Debian packages nginx and supervisor (\`apt remove\` them if nothing else needs them)")
  [ ${#left[@]} -gt 0 ] || say "removed"
  for unit in ${kept[@]+"${kept[@]}"}; do note "kept: $unit"; done
  [ ${#left[@]} -eq 0 ] && return
  for unit in "${left[@]}"; do printf 'left: %s\n' "$unit" >&2; done
  die "not everything could be removed; the rest is listed above" "remove it by hand, or fix the cause and run setup.sh again"
}

case $action in
  packages)
    [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
    exit 0
    ;;
esac
decide_places
decide_completions
if [ $action = uninstall ]; then
  uninstall
  exit 0
fi
check_first
[ "$edge_kind" = builtin ] || need_packages
build
prepare_config
install_program
make_user
install_config
install_completions
boot
tell_network
[ "$demo" = no ] || show_demo
what_next
