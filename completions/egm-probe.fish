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
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "stanza" -d 'Write the XML that gives EGM memory to a virtual machine'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "validate" -d 'Check the XML of virtual machines that have EGM memory'
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
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l gpu -d 'These GPUs, as 0009:01:00.0 or pci_0009_01_00_0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l region -d 'All GPUs of these regions, as egm4 or /dev/egm4' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l size -d 'Memory of each GPU in whole MiB, as 8GiB or in bytes [default: its share of the region]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l guest-node -d 'Guest NUMA node of a region [default: the one it backs already, or the first left]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l alias -d 'Alias of the one GPU; begins with ua-' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l alias-prefix -d 'What the aliases of the GPUs begin with, before a number [default: ua-hostdev]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l vcpus -d 'Virtual CPUs to share out anew over the cells [default: the domain\'s, as they are]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l gpu-cells -d 'Empty NUMA cells to add for each GPU\'s own memory where it has none; Grace GPUs want 8' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l format -d 'What to write' -r -f -a "xml\t'libvirt\'s XML'
json\t'The plan, the XML and QEMU\'s arguments (egm-probe.stanza/1)'
qemu-args\t'QEMU\'s arguments, each on a line of its own'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l indent -d 'Blanks a level of XML [default: 2, or as the domain has]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l domain -d 'Put it into the domain XML in FILE, beside what it has, and write that; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l for -d 'The virtual machine\'s name: what it holds itself is not in its way [default: the domain\'s]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l all -d 'All GPUs of all regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l peers -d 'Take the other GPUs of their regions, too'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l with-hostdev -d 'Write the GPUs\' <hostdev> elements, too'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l with-numa -d 'Write memory, memory backing and NUMA cells, too'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l shell -d 'Quote QEMU\'s arguments for a shell'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l in-place -d 'Write the domain back to its file'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l dry-run -d 'Only show what would change in the domain'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l force -d 'Go on where it is unwise: in use, or not all GPUs seen'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l strict -d 'Refuse whatever would only be warned of'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l schema -d 'libvirt\'s grammar in DIR [default: /usr/share/libvirt/schemas]' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l severity -d 'Show nothing that is less than this' -r -f -a "warning\t''
error\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l explain -d 'Explain a rule, such as EGM011, and exit; "all" lists them' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-host -d 'Leave the rules of this host out'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-schema -d 'Leave libvirt\'s grammar out'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l strict -d 'Warnings are wrong, too'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s q -l quiet -d 'Print nothing: the exit code tells'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s J -l json -d 'JSON (egm-probe.validate/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l sysroot -d 'Read the host whose sys, proc, .. lie below DIR' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l from -d 'Read the host that was captured into FILE, a tar or tar.gz; - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l color -d 'When to use colours; auto is on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l no-occupancy -d 'Do not look for who holds the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "list" -d 'List the EGM regions, one a line'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "show" -d 'Show everything known about regions or GPUs'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "stanza" -d 'Write the XML that gives EGM memory to a virtual machine'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "validate" -d 'Check the XML of virtual machines that have EGM memory'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "completions" -d 'Print the completions for a shell'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show stanza validate completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
