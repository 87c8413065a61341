/** The completion scripts. They do not know the verbs: each calls the client, which prints a line that says whether to complete file names,
 * and then one line for each candidate: the word, a tab, its description. A word that ends with =, / or , gets no blank after it. */

/** The script verbatim, except that `\${` stands for `${`, which would be a substitution of this language. */
const script = (parts: TemplateStringsArray) => String.raw(parts).replaceAll("\\${", "${");

const bash = script`# lido completion for bash: source <(lido completion bash)
_lido() {
  local -a words=() lines=()
  local rest=$COMP_LINE blanks word value current cut i
  # Bash takes words apart at = and : too.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    blanks=\${rest%%[![:space:]]*}
    rest=\${rest#"$blanks"}
    rest=\${rest#"$word"}
    if [ -z "$blanks" ] && [ "$i" -gt 0 ]; then words[-1]+=$word; else words+=("$word"); fi
  done
  words=("\${words[@]//[\"\'\\]/}")
  current=\${words[-1]}
  mapfile -t lines < <(command lido completion-values bash "\${words[@]:1}" 2>/dev/null)
  COMPREPLY=()
  if [ "\${lines[0]}" = files ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    return
  fi
  cut=\${current%"\${current##*[=:]}"}
  for value in "\${lines[@]:1}"; do
    value=\${value%%$'\t'*}
    case $value in
      *[!A-Za-z0-9_./=:,@%+-]*) printf -v value %q "$value" ;;
    esac
    COMPREPLY+=("\${value#"$cut"}")
  done
  case \${COMPREPLY[0]} in
    *= | */ | *,) compopt -o nospace 2>/dev/null ;;
  esac
}
complete -F _lido lido
`;

const zsh = script`#compdef lido
# lido completion for zsh: source <(lido completion zsh)
_lido() {
  local -a lines ended open
  local line value
  lines=("\${(@f)$(command lido completion-values zsh "\${(@Q)words[2,CURRENT-1]}" "\${(Q)PREFIX}" 2>/dev/null)}")
  if [[ \${lines[1]} == files ]]; then
    _files
    return
  fi
  shift lines
  for line in $lines; do
    value=\${line%%$'\t'*}
    if [[ $line == *$'\t'* ]]; then line=\${value//:/\\:}:\${line#*$'\t'}; else line=\${value//:/\\:}; fi
    case $value in
      *= | */ | *,) open+=("$line") ;;
      *) ended+=("$line") ;;
    esac
  done
  _describe -V -t values value open -S '' -- ended
}
if [[ \${funcstack[1]} == _lido ]]; then
  _lido "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
  compdef _lido lido
fi
`;

const fish = script`# lido completion for fish: lido completion fish | source
function __lido_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command lido completion-values fish $words[2..-1] "$current" 2>/dev/null)
    if test "$lines[1]" = files
        __fish_complete_path "$current"
    else if test (count $lines) -gt 1
        printf '%s\n' $lines[2..-1]
    end
end
complete -c lido -f -a '(__lido_complete)'
`;

export const scripts: Readonly<Record<string, string>> = { bash, zsh, fish };
