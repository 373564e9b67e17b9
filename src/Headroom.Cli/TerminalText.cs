using System.Text;

namespace Headroom.Cli;

/// <summary>
/// A terminal that only text reaches: what a model writes, and the names in its files, must not move the cursor, set a
/// title or answer a question. Output that goes to a file or a pipe is not changed.
/// </summary>
internal sealed class TerminalText(TextWriter inner) : TextWriter
{
    /// <inheritdoc/>
    public override Encoding Encoding => inner.Encoding;

    /// <inheritdoc/>
    public override void Write(char value) => inner.Write(Shown(value));

    /// <inheritdoc/>
    public override void Write(char[] buffer, int index, int count) => Write(buffer.AsSpan(index, count));

    /// <inheritdoc/>
    public override void Write(string? value) => Write(value.AsSpan());

    /// <inheritdoc/>
    public override void Write(ReadOnlySpan<char> buffer) => // in one piece: pieces of a line would flicker
        inner.Write(string.Create(buffer.Length, buffer, (text, source) =>
        {
            for (int i = 0; i < text.Length; i++)
                text[i] = source[i] == '\u001b' && IsColour(source[(i + 1)..]) ? source[i] : Shown(source[i]);
        }));

    /// <inheritdoc/>
    public override void WriteLine(string? value) => Write(value + "\n");

    /// <inheritdoc/>
    public override void Flush() => inner.Flush();

    /// <summary>
    /// What begins and ends the text that headroom data preview shows in colour; these two do no harm.
    /// </summary>
    public const string Green = "\u001b[32m", Plain = "\u001b[0m";

    private static bool IsColour(ReadOnlySpan<char> rest) =>
        rest.StartsWith(Green.AsSpan(1)) || rest.StartsWith(Plain.AsSpan(1));

    // A carriage return begins the line of progress anew; lines of others never hold one (Printable).
    private static char Shown(char c) => char.IsControl(c) && c is not ('\n' or '\r' or '\t') ? '\uFFFD' : c;
}
