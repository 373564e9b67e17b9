using System.Text;
using Headroom.Core;
using Headroom.Formats.HuggingFace;
using Headroom.Inference.Export;
using Headroom.Tokenizers;

namespace Headroom.Tests.Formats;

/// <summary>A folder that goes away with its test.</summary>
internal sealed class TempFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("headroom-").FullName;

    /// <summary>Writes a file under a name of this thread.</summary>
    public string Write(string name, byte[] data)
    {
        string path = System.IO.Path.Combine(Path, Environment.CurrentManagedThreadId + name);
        File.WriteAllBytes(path, data);
        return path;
    }

    public void Dispose() => Directory.Delete(Path, true);
}

/// <summary>Small models made up on the spot.</summary>
internal static class Samples
{
    /// <summary>Random weights under a configuration.</summary>
    public sealed class Weights(ModelConfig config, float scale = 0.1f) : IWeightSource
    {
        public ModelConfig Config => config;
        public string Hash => "";
        public bool Has(string hfName) => true;
        public (int Rows, int Cols) ShapeOf(string hfName) => WeightShapes.Expected(config, hfName)!.Value;
        public DType SourceDType(string hfName) => DType.F32;

        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
        {
            int cols = ShapeOf(hfName).Cols;
            uint stream = 0;
            foreach (char c in hfName) stream = stream * 31 + c;
            var random = new PhiloxRandom(9, stream) { Position = (ulong)firstRow * (ulong)cols * 2 };
            for (int i = 0; i < rowCount * cols; i++) destination[i] = random.NextNormal() * scale;
        }

        public void Dispose() { }
    }

    public static ModelConfig Config(string type = "llama") => new()
    {
        ModelType = type,
        Architecture = type == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM",
        VocabSize = 260,
        HiddenSize = 32,
        IntermediateSize = 40,
        NumHiddenLayers = 1,
        NumAttentionHeads = 4,
        NumKeyValueHeads = 2,
        HeadDim = 8,
        MaxPositionEmbeddings = 64,
        AttentionBias = type == "qwen2",
        BosTokenId = 256,
        EosTokenIds = [257],
    };

    /// <summary>A byte-level tokenizer.json: the 256 bytes, one merge, a BOS and an EOS that are not added.</summary>
    public static string Tokenizer(string folder)
    {
        var vocab = string.Join(
            ',', ByteAlphabet.Chars.Select((c, i) => System.Text.Json.JsonSerializer.Serialize(c.ToString()) + ":" + i)
        );
        string path = System.IO.Path.Combine(folder, "tokenizer.json");
        File.WriteAllText(
            path,
            $"{{\"added_tokens\":[{{\"id\":256,\"content\":\"<s>\",\"special\":true}},{{\"id\":257,"
                + $"\"content\":\"</s>\",\"special\":true}}],\"normalizer\":null,"
                + "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
                + "\"decoder\":{\"type\":\"ByteLevel\"},"
                + $"\"model\":{{\"type\":\"BPE\",\"vocab\":{{{vocab},\"<s>\":256,\"</s>\":257,\"He\":258}},"
                + $"\"merges\":[\"H e\"]}}}}",
            new UTF8Encoding(false)
        );
        return path;
    }

    /// <summary>A whole tiny GGUF file.</summary>
    public static void Gguf(string path, string type)
    {
        using var folder = new TempFolder();
        using var weights = new Weights(Config());
        GgufExporter.Write(weights, GgufVocabulary.Build(Tokenizer(folder.Path), 260), type, path, "sample");
    }
}
