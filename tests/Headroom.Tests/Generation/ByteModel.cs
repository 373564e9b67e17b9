using System.Text;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tokenizers;

namespace Headroom.Tests.Generation;

/// <summary>
/// A tokenizer of single bytes and four special tokens, with a ChatML template; characters beyond ASCII span tokens.
/// </summary>
public sealed class ByteTokenizer : ITokenizer
{
    private static readonly string[] Special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    public const int EndOfTurn = 259;
    public const string ChatMl =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
            + "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    public int VocabSize => 260;
    public int? BosId => 256;
    public int? EosId => 257;
    public bool AddBos => true;
    public bool AddEos => false;
    public string? ChatTemplate { get; init; } = ChatMl;

    public int[] Encode(string text, bool addSpecial = false)
    {
        var ids = new List<int>();
        if (addSpecial) ids.Add(256);
        for (int i = 0; i < text.Length;)
        {
            int special = Array.FindIndex(Special, s => string.CompareOrdinal(text, i, s, 0, s.Length) == 0);
            if (special >= 0)
            {
                ids.Add(256 + special);
                i += Special[special].Length;
                continue;
            }
            int n = char.IsHighSurrogate(text[i]) ? 2 : 1;
            foreach (byte b in Encoding.UTF8.GetBytes(text.Substring(i, n))) ids.Add(b);
            i += n;
        }
        return [.. ids];
    }

    public string Decode(ReadOnlySpan<int> ids)
    {
        var bytes = new List<byte>();
        foreach (int id in ids)
            if (id < 256) bytes.Add((byte)id);
            else bytes.AddRange(Encoding.UTF8.GetBytes(Special[id - 256]));
        return Encoding.UTF8.GetString(bytes.ToArray());
    }

    public string IdToToken(int id) => id < 256 ? ((char)id).ToString() : Special[id - 256];
    public int? TokenToId(string token) => Array.IndexOf(Special, token) is var i and >= 0 ? 256 + i : null;
}

/// <summary>A model of two layers with random weights over the bytes.</summary>
public static class ByteModel
{
    internal static ModelConfig Config { get; } = new()
    {
        VocabSize = 260,
        HiddenSize = 64,
        IntermediateSize = 96,
        NumHiddenLayers = 2,
        NumAttentionHeads = 4,
        NumKeyValueHeads = 2,
        HeadDim = 16,
        MaxPositionEmbeddings = 512,
    };

    public static Generator Open(int context = 400, ITokenizer? tokenizer = null, params int[] ends)
    {
        var engine = new Engine(
            TestDevice.Open(), Config, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(GenerateTokens: context, PromptTokens: 32));
        engine.FillRandom(7);
        return new Generator(engine, tokenizer ?? new ByteTokenizer(), ends);
    }
}
