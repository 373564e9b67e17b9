using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using Headroom.Core;

namespace Headroom.Cli;

/// <summary>Faults of the command line itself, in the two lines that every other fault has.</summary>
internal static class CommandLine
{
    /// <summary>
    /// Refuses what the parser refused (it would print its usage to standard output and exit with 1), and empty values.
    /// </summary>
    public static void Check(ParseResult parsed)
    {
        string command =
            parsed.CommandResult.Command is RootCommand
                ? "headroom"
                : "headroom " + string.Join(' ', Names(parsed.CommandResult));
        if (parsed.Action is ParseErrorAction && parsed.Errors.Count > 0)
        {
            // An unknown word comes last: before it stands that a command or an argument is missing.
            string what = (
                parsed.UnmatchedTokens.Count > 0
                    ? parsed.Errors.LastOrDefault(e =>
                        e.Message.Contains(parsed.UnmatchedTokens[0], StringComparison.Ordinal)
                    ) ?? parsed.Errors[0]
                    : parsed.Errors[0]
            ).Message;
            throw new HeadroomException(
                string.Join(' ', what.Split(['\n', '\r', '\t'], StringSplitOptions.RemoveEmptyEntries)).TrimEnd('.')
                    + ".",
                parsed.CommandResult.Command.Subcommands.Count > 0
                    ? $"Commands: {string.Join(", ", parsed.CommandResult.Command.Subcommands.Select(c => c.Name))}; "
                        + $"{command} --help says more."
                    : $"See {command} --help."
            );
        }
        foreach (var child in parsed.CommandResult.Children)
        {
            var (name, tokens) = child switch
            {
                OptionResult o => (o.Option.Name, o.Tokens),
                ArgumentResult a => (a.Argument.Name, a.Tokens),
                _ => ("", []),
            };
            if (
                name is not ("--prompt" or "--message" or "--system")
                && tokens.Any(t => string.IsNullOrWhiteSpace(t.Value))
            )
                throw new HeadroomException(
                    $"{name} is empty.", $"Give it a value or leave it out; {command} --help says more.");
        }
    }

    /// <summary>Refuses options that were given where they say nothing.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="where">What they do not go with, as the subject of a sentence.</param>
    /// <param name="options">The options.</param>
    public static void Refuse(ParseResult parsed, string where, params Option[] options)
    {
        foreach (var o in options)
            if (parsed.GetResult(o) is { Implicit: false })
                throw new HeadroomException(
                    $"{where} takes no {o.Name}.",
                    $"Leave it out; headroom {string.Join(' ', Names(parsed.CommandResult))} --help says what goes "
                        + $"with it."
                );
    }

    private static IEnumerable<string> Names(CommandResult result) =>
        result.Command is RootCommand ? [] : [.. result.Parent is CommandResult p ? Names(p) : [], result.Command.Name];
}
