using Headroom.Formats.Data;

namespace Headroom.Tests.Data;

/// <summary>
/// Which texts count as one. Expected folds are those of Unicode (CaseFolding.txt, C and F), composed.
/// </summary>
public class TextKeyTests
{
    [Theory]
    [InlineData("  A \t\r\n b\u00A0\u2003C ", "a b c")]
    [InlineData("plain text.", "plain text.")]
    [InlineData(" two  blanks ", "two blanks")]
    [InlineData("STRASSE Straße STRAẞE", "strasse strasse strasse")]
    [InlineData("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ")]
    [InlineData("ﬁne oﬃce ﬅ", "fine office st")]
    [InlineData("İstanbul ISTANBUL ı", "i\u0307stanbul istanbul ı")]
    [InlineData("\u212A \u00C5 \u212B A\u030A", "k å å å")]
    [InlineData("ᾈ ᾀ ἀι ᾼ ᾳ", "ἀι ἀι ἀι αι αι")]
    [InlineData("Ǆ ǅ ǆ ſ ŉ և", "ǆ ǆ ǆ s ʼn եւ")]
    [InlineData("𐐀 Ꭰ", "𐐨 ꭰ")]
    [InlineData("\uFEFFa\u200Bb c\u00ADd \u2764\uFE0F \u200B e", "ab cd \u2764 e")]
    [InlineData("C++ C# -5 😀 👩‍💻", "c++ c# -5 😀 👩‍💻")]
    public void Folds(string text, string folded)
    {
        Assert.Equal(folded, TextKey.Fold(text));
        Assert.Equal(TextKey.Compute(folded), TextKey.Compute(text));
        Assert.Equal(TextKey.Fold(folded), folded);
    }

    [Theory]
    [InlineData("C++", "C#")]
    [InlineData("Great film 😀", "Great film 😡")]
    [InlineData("ดี", "ดู")]
    [InlineData("फिल्म की", "फिल्म का")]
    [InlineData("rated -5", "rated 5")]
    [InlineData("a > b", "a < b")]
    [InlineData("±1", "1")]
    [InlineData("wow!", "wow?")]
    [InlineData("👩🏻", "👩🏿")]
    [InlineData("über", "uber")]
    [InlineData("a b", "ab")]
    [InlineData("𝒜", "𝒝")]
    [InlineData("", "!")]
    public void TellsApart(string a, string b) => Assert.NotEqual(TextKey.Compute(a), TextKey.Compute(b));

    [Fact]
    public void LettersAloneAndSeveralTexts()
    {
        Assert.Equal(TextKey.OfLetters("Well, done!"), TextKey.OfLetters("well done"));
        Assert.NotEqual(TextKey.OfLetters("ดี"), TextKey.OfLetters("ดู"));
        Assert.NotEqual(TextKey.OfLetters("😀"), TextKey.OfLetters("😡"));
        Assert.NotEqual(TextKey.Compute("ab", "c"), TextKey.Compute("a", "bc"));
        Assert.NotEqual(TextKey.Compute("a", ""), TextKey.Compute("a"));
    }

    /// <summary>
    /// The copies that the two IMDB samples share: those that differ in a sign are in the second number alone.
    /// </summary>
    [Fact]
    public void FindsTheSharedReviewsOfImdb()
    {
        List<string> Texts(string name) => [.. DataFiles.Read(Shared.DataFile(name)).Select(r => r.Text)];
        List<string> small = Texts("imdb-5k.jsonl.gz"), large = Texts("imdb-train-10k.jsonl.gz");
        int Shared_(Func<string, UInt128> key)
        {
            var keys = large.Select(key).ToHashSet();
            return small.Count(t => keys.Contains(key(t)));
        }
        Assert.Equal((1802, 1864), (Shared_(t => TextKey.Compute(t)), Shared_(t => TextKey.OfLetters(t))));
    }
}
