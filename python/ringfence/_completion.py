"""Completion for shells: scripts that are made from the parser of the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")

#: Commands whose arguments are names of containers; of `exec` only the first.
_NAMED = ("beancounters", "exec", "inspect", "kill", "logs", "ps", "rm", "stats", "stop")


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _helps(parser: argparse.ArgumentParser) -> dict[str, str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {}


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.option_strings)


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _names_command(of: str = "ls") -> str:
    """What prints the names of the containers, or of the `volumes`."""
    # Not -m: that takes modules of whatever directory the shell is in.
    run = "import sys; sys.path.pop(0); import runpy; runpy.run_module('ringfence', run_name='__main__')"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(run)} {of} -q 2>/dev/null"


_BASH = """\
# Completion of ringfence for bash: source <(ringfence completion bash)
_ringfence() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    local options="" values="" names=no i place=0
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$word"))
        return
    fi
    case $command in
@CASES@
    esac
    for ((i = 2; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        -*) [[ " $values " == *" ${COMP_WORDS[i]} "* ]] && i=$((i + 1)) ;;
        *) place=$((place + 1)) ;;
        esac
    done
    if [[ " $values " == *" $before "* ]]; then
        COMPREPLY=($(compgen -f -- "$word"))
    elif [ "$command" = completion ]; then
        COMPREPLY=($(compgen -W "@SHELLS@" -- "$word"))
    elif { [ "$command" = run ] || [ "$command" = exec ] || [ "$command" = plan ]; } && [ "$place" -gt 1 ]; then
        COMPREPLY=($(compgen -f -- "$word"))
    elif [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    elif [ "$command" = cp ]; then
        # NAME:PATH; the path inside is for who types it.
        COMPREPLY=($(compgen -S : -W "$(@NAMES@)" -- "$word") $(compgen -f -- "$word"))
        [[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    elif [ "$command" = volume ] && [ "$place" -eq 0 ]; then
        COMPREPLY=($(compgen -W rm -- "$word"))
    elif [ "$command" = volume ]; then
        COMPREPLY=($(compgen -W "$(@VOLUMES@)" -- "$word"))
    elif [ "$names" = yes ] && { [ "$command" != exec ] || [ "$place" -eq 0 ]; }; then
        COMPREPLY=($(compgen -W "$(@NAMES@)" -- "$word"))
    elif [ "$command" = run ] || [ "$command" = exec ] || [ "$command" = plan ]; then
        COMPREPLY=($(compgen -c -- "$word"))
    fi
}
complete -o default -F _ringfence ringfence
"""


def _bash(parser: argparse.ArgumentParser) -> str:
    cases = []
    for name, sub in _commands(parser).items():
        options = [word for action in _options(sub) for word in action.option_strings]
        values = [word for action in _options(sub) if _takes_value(action) for word in action.option_strings]
        names = "yes" if name in _NAMED else "no"
        cases.append(f'    {name}) options="{" ".join(options)}" values="{" ".join(values)}" names={names} ;;')
    return (
        _BASH.replace("@COMMANDS@", " ".join(_commands(parser)))
        .replace("@CASES@", "\n".join(cases))
        .replace("@SHELLS@", " ".join(SHELLS))
        .replace("@NAMES@", _names_command())
        .replace("@VOLUMES@", _names_command("volumes"))
    )


_ZSH = """\
#compdef ringfence
# Completion of ringfence for zsh: source <(ringfence completion zsh)
_ringfence_names() {
    local -a names
    names=(${(f)"$(@NAMES@)"})
    _describe container names
}
_ringfence_places() {
    local -a names
    names=(${(f)"$(@NAMES@)"})
    compadd -S : -a names
    _files
}
_ringfence_volumes() {
    local -a names
    names=(${(f)"$(@VOLUMES@)"})
    _describe volume names
}
_ringfence() {
    local context state line
    typeset -A opt_args
    _arguments -C '1:command:->command' '*::argument:->argument'
    case $state in
    command)
        local -a commands
        commands=(
@COMMANDS@
        )
        _describe command commands
        ;;
    argument)
        case $line[1] in
@CASES@
        esac
        ;;
    esac
}
compdef _ringfence ringfence
"""


def _zsh_text(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, "\\" + character)
    return text.replace("'", "'\\''")


def _zsh(parser: argparse.ArgumentParser) -> str:
    commands = [f"            '{name}:{_zsh_text(help)}'" for name, help in _helps(parser).items()]
    cases = []
    for name, sub in _commands(parser).items():
        words = []
        for action in _options(sub):
            value = ":value:_files" if _takes_value(action) else ""
            words += [f"'*{word}[{_zsh_text(action.help or '')}]{value}'" for word in action.option_strings]
        if name == "exec":
            words += ["'1:container:_ringfence_names'", "'*::command:_normal'"]
        elif name in _NAMED:
            words.append("'*:container:_ringfence_names'")
        elif name == "cp":
            words.append("'*:place:_ringfence_places'")
        elif name == "volume":
            words += ["'1:action:(rm)'", "'*:volume:_ringfence_volumes'"]
        elif name in ("run", "plan"):
            words.append("'*::command:_normal'")
        elif name == "completion":
            words.append(f"'1:shell:({' '.join(SHELLS)})'")
        cases.append(f"        {name}) _arguments {' '.join(words)} ;;")
    return (
        _ZSH.replace("@COMMANDS@", "\n".join(commands))
        .replace("@CASES@", "\n".join(cases))
        .replace("@NAMES@", _names_command())
        .replace("@VOLUMES@", _names_command("volumes"))
    )


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = ["# Completion of ringfence for fish: ringfence completion fish | source", "complete -c ringfence -f"]
    for name, help in _helps(parser).items():
        lines.append(f"complete -c ringfence -n __fish_use_subcommand -a {name} -d {_fish_text(help)}")
    for name, sub in _commands(parser).items():
        start = f"complete -c ringfence -n '__fish_seen_subcommand_from {name}'"
        for action in _options(sub):
            words = [f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in action.option_strings]
            value = " -r -F" if _takes_value(action) else ""
            lines.append(f"{start} {' '.join(words)}{value} -d {_fish_text(action.help or '')}")
        if name == "rm":
            # `volume rm` takes other names.
            start = (
                "complete -c ringfence -n '__fish_seen_subcommand_from rm; and not __fish_seen_subcommand_from volume'"
            )
        if name in _NAMED:
            lines.append(f"{start} -a {_fish_text(f'({_names_command()})')}")
        elif name == "cp":
            places = f"({_names_command()} | string replace -r '$' ':')"
            lines.append(f"{start} -F -a {_fish_text(places)}")
        elif name == "volume":
            lines.append(f"{start} -a {_fish_text('rm (' + _names_command('volumes') + ')')}")
        elif name in ("run", "plan"):
            lines.append(f"{start} -a '(__fish_complete_subcommand)'")
        elif name == "completion":
            lines.append(f"{start} -a {_fish_text(' '.join(SHELLS))}")
    return "\n".join(lines) + "\n"


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)
