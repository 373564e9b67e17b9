using System.Text;
using Headroom.Core;

namespace Headroom.Tests;

public class PrintableTests
{
    [Theory]
    [InlineData("plain text, ü, 😀", "plain text, ü, 😀")]
    [InlineData("a\nb\r\n\tc", "a b c")]
    [InlineData("red \u001b[31m", "red \\u001b[31m")]
    [InlineData("csi \u009b1m, nul \0", "csi \\u009b1m, nul \\u0000")]
    [InlineData("turned \u202e round", "turned \\u202e round")]
    [InlineData("mark \ufffd", "mark \ufffd")]
    public void LinesSteerNothing(string text, string shown) => Assert.Equal(shown, Printable.Line(text));

    [Fact]
    // no attribute can hold one
    public void HalfAPairIsSpelledOut() => Assert.Equal("half \\ud83d", Printable.Line("half \ud83d"));

    [Fact]
    public void LinesKeepTheirBreaks() => Assert.Equal("a\n\tb\\u000dc", Printable.Lines("a\n\tb\rc"));

    /// <summary>
    /// The two lines of a message are sentences of less than 2 KB together: beginning and end stay, no pair of
    /// surrogates is torn.
    /// </summary>
    [Theory]
    [InlineData("x")]
    [InlineData("ü")]
    [InlineData("ดี")]
    [InlineData("😀")]
    [InlineData("a😀")]
    public void MessagesAreBounded(string unit)
    {
        for (int more = 0; more < 5; more++)
        {
            string cell = new string('-', more) + string.Concat(Enumerable.Repeat(unit, 5000));
            var e = new HeadroomException($"Row 3 holds '{cell}', which is no label", $"Add '{cell}' to task.labels");
            foreach (string text in new[] { e.Message, e.ToDo })
            {
                Assert.Contains(" ... ", text);
                Assert.DoesNotContain("\\ud", text);
                Assert.Equal(text, Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)));
            }
            Assert.InRange(Encoding.UTF8.GetByteCount(e.Message + e.ToDo), 1900, 2002);
            Assert.StartsWith("Row 3 holds '", e.Message);
            Assert.EndsWith("', which is no label.", e.Message);
            Assert.EndsWith("' to task.labels.", e.ToDo);
        }
    }

    [Fact]
    public void MessagesKeepTheCaseOfNames() =>
        Assert.Equal("src exists already.", new HeadroomException("src exists already", "").Message);
}
