#!/usr/bin/env bash
# Downloads what the MEAP paper uses, into data/: needs bash, curl and sha256sum, no account.
#
#   scripts/fetch.sh --list            the sets and files, with sizes and checksums as far as they are known; needs no network
#   scripts/fetch.sh --dry-run SET...  what would be downloaded, with the sizes that the servers tell
#   scripts/fetch.sh SET...            downloads; the same command continues what was interrupted
#
# scripts/fetch.list holds a line per file: set, SHA-256, bytes, path below data/, address. Where it has "-" for a checksum nobody has
# vouched for one: what the first download gives is written to data/fetch.lock, and later downloads must be the same.
set -euo pipefail
cd "$(dirname "$0")/.."
list=${MEAP_FETCH_LIST:-scripts/fetch.list} data=${MEAP_FETCH_DIR:-data}
lock=$data/fetch.lock

fail() { echo "fetch: $*" >&2; exit 1; }
files() { grep -v '^#' "$list" | while read -r line; do set -- $line; for s in "${sets[@]}"; do [ "$s" = "$1" ] && echo "$line"; done; done || true; }
known() { # the checksum of a path: of the list, or of the first download
  if [ "$1" != - ]; then echo "$1"; elif [ -f "$lock" ]; then awk -v p="$2" '$2 == p {print $1}' "$lock" | tail -1; fi
}
sum() { sha256sum "$1" | cut -d' ' -f1; }

mode=fetch
case "${1:-}" in
  --list) mode=list; shift ;;
  --dry-run) mode=dry; shift ;;
  -h | --help | "") sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
sets=("$@")
[ ${#sets[@]} -gt 0 ] || mapfile -t sets < <(grep -v '^#' "$list" | awk '!seen[$1]++ {print $1}')
for s in "${sets[@]}"; do grep -q "^$s[[:space:]]" "$list" || fail "there is no set $s; --list shows them"; done

bad=0
while read -r set want bytes path url; do
  want=$(known "$want" "$path")
  case $mode in
    list) printf '%-10s %12s bytes  sha256 %-64s  %s\n' "$set" "$bytes" "${want:-not known}" "$path"; continue ;;
    dry)
      said=$(curl -fsSLI --max-time 30 "$url" | tr -d '\r' | awk 'tolower($1) == "content-length:" {n = $2} END {print n}') || said=
      printf '%-10s listed %s bytes, the server says %s, sha256 %s  %s\n' "$set" "$bytes" "${said:-nothing}" "${want:-not known}" "$url"
      continue ;;
  esac
  to=$data/$path
  if [ -f "$to" ]; then
    [ -n "$want" ] && [ "$(sum "$to")" != "$want" ] && { echo "fetch: $to is not the file that was expected; delete it and fetch it again" >&2; bad=1; continue; }
    echo "have  $path"; continue
  fi
  mkdir -p "$(dirname "$to")"
  printf 'fetch %s: %s bytes, sha256 %s\n' "$path" "$bytes" "${want:-not known}"
  # A part that is already there is continued; a server that cannot do that sends the whole file.
  if ! curl -fL --retry 3 --connect-timeout 30 -sS -C - -o "$to.part" "$url"; then
    echo "fetch: $url: the download failed; the same command continues it" >&2; bad=1; continue
  fi
  got=$(sum "$to.part")
  if [ -n "$want" ] && [ "$got" != "$want" ]; then
    rm -f "$to.part"
    echo "fetch: $path has the SHA-256 $got, not $want: it is damaged, or was changed where it comes from; nothing was kept" >&2; bad=1; continue
  fi
  if [ -z "$want" ]; then
    echo "$got  $path" >>"$lock"
    echo "      no checksum was known; $got is noted in $lock"
  fi
  mv "$to.part" "$to"
done < <(files)
exit $bad
