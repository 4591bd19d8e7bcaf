# shellcheck shell=bash
# What tools.sh sources: does several parts at once, says every few seconds how far they are, and keeps their output
# apart.
#
# A part NAME is: there_NAME, whether nothing is to do (quick, silent); make_NAME, which does it; optionally doing_NAME,
# which prints in some words how far it is; AFTER[NAME], the parts that must be there before. The output of a part goes
# to a file; if the part fails, all of it is shown. Two callers at once: the second waits and finds what the first has
# made.

declare -A AFTER=() PID=() BEGAN=() TOOK=()
TODO=()                # what has work, in an order that respects AFTER
UNINTERRUPTED=()       # parts that are waited for when another one has failed
OUTPUT=$CHECKOUT/.cluster/setup
RUN=                   # notes of this run only
[ -t 2 ] && EVERY=1 || EVERY=10

plan() { # PART...: add to TODO what is not there, and before it what it needs
  local part
  for part in "$@"; do
    [[ " ${TODO[*]} " != *" $part "* ]] || continue
    ! "there_$part" || continue
    # shellcheck disable=SC2086
    plan ${AFTER[$part]:-}
    TODO+=("$part")
  done
}

begin() { # PART, in a process group of its own
  (
    trap - INT TERM HUP
    lock_part "$1"
    if "there_$1"; then exit 0; fi
    : >"$RUN/$1.busy"
    exec >"$OUTPUT/$1.log" 2>&1
    "make_$1"
    if ! "there_$1"; then fail "part $1 was made, but is not as it should be"; fi
  ) </dev/null &
  PID[$1]=$!
  BEGAN[$1]=$SECONDS
}

lock_part() { # PART: as long as this process lives
  local file
  file=$(lock_of "$1")
  if [ -n "$file" ]; then
    exec 8<"$file"
    flock 8
  fi
}

ready() { # PART: whether all that it waits for is done
  local other
  for other in ${AFTER[$1]:-}; do
    [[ " ${TODO[*]} " != *" $other "* ]] || [ -n "${TOOK[$other]:-}" ] || return 1
  done
}

elapsed() { # how far each running part is
  local part words line=
  for part in "${!PID[@]}"; do
    words=
    if [ ! -e "$RUN/$part.busy" ]; then
      words="waiting for another run"
    elif declare -F "doing_$part" >/dev/null; then
      words=$("doing_$part") || true
    fi
    line+="${line:+; }$part $((SECONDS - BEGAN[$part])) s${words:+ ($words)}"
  done
  echo "$line"
}

show() { # LINE: instead of the last one on a terminal, below it in a log
  if [ -t 2 ]; then
    printf '\r\033[K%s' "$(cut -c "1-$(($(tput cols 2>/dev/null || echo 80) - 1))" <<<"cluster: $1")" >&2
  else
    say "$1"
  fi
}

clear_line() { [ ! -t 2 ] || printf '\r\033[K' >&2; }

end_parts() { # end what runs; what must not be interrupted is waited for
  local part
  for part in "${!PID[@]}"; do
    if [[ " ${UNINTERRUPTED[*]} " == *" $part "* ]]; then
      say "waiting for part $part to end"
    else
      kill -TERM -- "-${PID[$part]}" 2>/dev/null || true
    fi
  done
  for part in "${!PID[@]}"; do wait "${PID[$part]}" 2>/dev/null || true; done
}

make_parts() { # what is in TODO; ends the script with status 1 if one fails
  local part shown=$SECONDS began=$SECONDS summary=
  mkdir -p "$OUTPUT" 2>/dev/null && [ -w "$OUTPUT" ] || OUTPUT=$(mktemp -d)
  RUN=$(mktemp -d)
  trap 'rm -rf "$RUN"' EXIT
  set -m # every part is a process group
  trap 'clear_line; end_parts; exit 130' INT TERM HUP
  while [ ${#TOOK[@]} -lt ${#TODO[@]} ]; do
    for part in "${TODO[@]}"; do
      [ -n "${PID[$part]:-}${TOOK[$part]:-}" ] || ! ready "$part" || begin "$part"
    done
    sleep 0.2
    for part in "${!PID[@]}"; do
      ! kill -0 "${PID[$part]}" 2>/dev/null || continue
      if ! wait "${PID[$part]}"; then
        unset "PID[$part]"
        clear_line
        end_parts
        say "part $part failed after $((SECONDS - BEGAN[$part])) s; its output:"
        cat "$OUTPUT/$part.log" >&2
        exit 1
      fi
      unset "PID[$part]"
      TOOK[$part]=$((SECONDS - BEGAN[$part]))
    done
    if [ $((SECONDS - shown)) -ge $EVERY ] && [ ${#PID[@]} -gt 0 ]; then
      shown=$SECONDS
      show "$(elapsed)"
    fi
  done
  clear_line
  trap - INT TERM HUP
  set +m
  for part in "${TODO[@]}"; do summary+="${summary:+, }$part ${TOOK[$part]} s"; done
  say "ready after $((SECONDS - began)) s: $summary (output: $OUTPUT)"
}
