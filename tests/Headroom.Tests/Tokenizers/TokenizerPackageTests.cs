using Headroom.Tokenizers;
using Microsoft.ML.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>
/// A second opinion on the ids: the platform's own tokenizer package, where it can read the vocabulary
/// (docs/dependencies.md says where it differs and why).
/// </summary>
public sealed class TokenizerPackageTests
{
    [Fact]
    public void AgreesOnAlmostAllSentences()
    {
        string path = Shared.DataFile("tokenizers/llama2/tokenizer.model");
        var ours = TokenizerLoader.Load(path);
        using var stream = File.OpenRead(path);
        var theirs = LlamaTokenizer.Create(stream, addBeginOfSentence: false, addEndOfSentence: false);
        string[] lines = File.ReadAllText(Shared.DataFile("rt-polarity/rt-polarity.pos"))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries);
        int same = 0;
        foreach (string line in lines) if (theirs.EncodeToIds(line).SequenceEqual(ours.Encode(line))) same++;
        Assert.True(same >= lines.Length * 0.99, $"{same} of {lines.Length} agree");
    }
}
