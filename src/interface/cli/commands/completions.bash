# shellcheck shell=bash
# Beside what the command line itself offers: names of instances and models, asked for when they are needed.
_acc_named() {
    local program=$1 cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' kind='' i config=()
    _acc "$@"
    [[ $cur != -* ]] || return 0
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --config) config=(--config "${COMP_WORDS[++i]}") ;;
            -*) ;;
            *) verb=${verb:-${COMP_WORDS[i]}} ;;
        esac
    done
    case $verb:$prev in
        create:--model | create:-m | list:--model | prove:--app | models:models) kind=--models ;;
        list:--after | prove:--instance) ;;
        *:--config | *:--lines | *:-n) return 0 ;;
        start:* | wake:* | stop:* | sleep:* | restart:* | enable:* | disable:* | pin:* | reset:* | destroy:* | purge:*) ;;
        info:* | logs:* | events:*) ;;
        *) return 0 ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$("$program" "${config[@]}" names $kind 2>/dev/null)" -- "$cur")
}
complete -F _acc_named -o bashdefault -o default acc
