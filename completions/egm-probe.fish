# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_egm_probe_global_optspecs
    string join \n sysroot= from= no-occupancy color= h/help V/version
end

function __fish_egm_probe_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_egm_probe_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_egm_probe_using_subcommand
    set -l cmd (__fish_egm_probe_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c egm-probe -n "__fish_egm_probe_needs_command" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "list" -d 'List the EGM regions, one a line'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "ls" -d 'List the EGM regions, one a line'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "show" -d 'Show everything known about regions or GPUs'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "completions" -d 'Print the completions for a shell'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s o -l output -d 'Show these columns; +LIST shows them beside the default ones' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s O -l output-all -d 'Show all columns'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s b -l bytes -d 'Show sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s n -l noheadings -d 'Leave out the header'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s r -l raw -d 'One blank between columns; blanks in values are escaped'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s P -l pairs -d 'NAME="value" pairs, for shells'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s J -l json -d 'JSON (egm-probe.list/1): every field whatever is chosen, sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s H -l list-columns -d 'List the columns there are, and exit'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s o -l output -d 'Show these columns; +LIST shows them beside the default ones' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s O -l output-all -d 'Show all columns'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s b -l bytes -d 'Show sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s n -l noheadings -d 'Leave out the header'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s r -l raw -d 'One blank between columns; blanks in values are escaped'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s P -l pairs -d 'NAME="value" pairs, for shells'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s J -l json -d 'JSON (egm-probe.list/1): every field whatever is chosen, sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s H -l list-columns -d 'List the columns there are, and exit'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l gpu -d 'GPUs, as 0009:01:00.0 or pci_0009_01_00_0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s J -l json -d 'JSON (egm-probe.show/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show completions help" -f -a "list" -d 'List the EGM regions, one a line'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show completions help" -f -a "show" -d 'Show everything known about regions or GPUs'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show completions help" -f -a "completions" -d 'Print the completions for a shell'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
