using System.CommandLine;

namespace Headroom.Cli;

/// <summary>Options as several commands have them.</summary>
internal static class CommonOptions
{
    /// <summary>--json of a command that shows progress.</summary>
    public static Option<bool> Json() =>
        new("--json") { Description = "Print the result as JSON; progress goes to standard error." };

    /// <summary>An option that is absent unless it is given.</summary>
    public static Option<T> Make<T>(string name, string description) => new(name) { Description = description };

    /// <summary>An option with a default.</summary>
    public static Option<T> With<T>(string name, T usual, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => usual };
}
