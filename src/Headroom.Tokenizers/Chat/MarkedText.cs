namespace Headroom.Tokenizers.Chat;

/// <summary>A stretch of a rendered conversation that an assistant would write itself.</summary>
/// <param name="Message">Index of its message.</param>
/// <param name="Start">First character (UTF-16).</param>
/// <param name="End">Behind the last.</param>
/// <param name="Reasoning">Whether it is what the assistant thinks before it answers.</param>
internal readonly record struct TurnSpan(int Message, int Start, int End, bool Reasoning);

/// <summary>A rendered conversation with what of it assistants write.</summary>
/// <param name="Text">The text, equal to <see cref="ChatTemplate.Render(System.Text.Json.Nodes.JsonArray, bool,
/// System.Text.Json.Nodes.JsonObject?, DateTimeOffset?)"/>'s.</param>
/// <param name="Turns">In order, apart from one another.</param>
/// <param name="Unclosed">Messages of assistants that the template closes with no token of its own.</param>
internal sealed record MarkedText(string Text, IReadOnlyList<TurnSpan> Turns, IReadOnlyList<int> Unclosed);
