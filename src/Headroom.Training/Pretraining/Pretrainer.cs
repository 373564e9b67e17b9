using System.Buffers.Binary;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Training.Pretraining;

/// <summary>Shape of a small base and how long it learns.</summary>
internal sealed class PretrainOptions
{
    /// <summary>sentencepiece (Llama-2's way) or byte-level (DeepSeek's way).</summary>
    public string Tokenizer { get; set; } = "sentencepiece";
    /// <summary>Pieces asked for; fewer come out where the texts have no more pairs.</summary>
    public int VocabSize { get; set; } = 1024;
    /// <summary>hidden_size.</summary>
    public int HiddenSize { get; set; } = 192;
    /// <summary>intermediate_size.</summary>
    public int IntermediateSize { get; set; } = 512;
    /// <summary>num_hidden_layers.</summary>
    public int NumHiddenLayers { get; set; } = 4;
    /// <summary>num_attention_heads.</summary>
    public int NumAttentionHeads { get; set; } = 6;
    /// <summary>Notes of the embedded corpus.</summary>
    public int Notes { get; set; } = 40000;
    /// <summary>Notes of an update.</summary>
    public int BatchSize { get; set; } = 32;
    /// <summary>Passes over the notes.</summary>
    public double Epochs { get; set; } = 1;
    /// <summary>Peak learning rate (cosine, 3 % warm-up).</summary>
    public double LearningRate { get; set; } = 2e-3;
    /// <summary>Seed of corpus, weights and order.</summary>
    public int Seed { get; set; } = 1;
}

/// <summary>Trains a small Llama-class base from nothing and writes it as a Hugging Face folder in bf16.</summary>
internal static class Pretrainer
{
    private const string Begin = "<|begin_of_sentence|>", End = "<|end_of_sentence|>"; // of a byte-level tokenizer
    private const int MaxTokens = 128; // the longest note has about 90 tokens

    private static readonly string[] Files =
    [
        "model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"];

    /// <summary>
    /// Makes the base in <paramref name="folder"/>, new or empty, and returns the mean loss over the last tenth of the
    /// updates, or null when stopped. What fails or is stopped leaves nothing. With <paramref name="overwrite"/> a
    /// folder that holds such a base and nothing else is replaced at the end.
    /// </summary>
    /// <exception cref="HeadroomException">Sizes do not fit, something is there, or it cannot be written.</exception>
    public static double? Run(
        PretrainOptions o, string folder, IDevice device, Action<string> say,
        Action<string, long, long, string> progress, CancellationToken stop, bool overwrite = false)
    {
        if (o.HiddenSize % o.NumAttentionHeads != 0)
            throw new HeadroomException(
                $"hidden_size {o.HiddenSize} is not a multiple of num_attention_heads {o.NumAttentionHeads}.",
                "Choose sizes that divide.");
        if (o.HiddenSize / o.NumAttentionHeads % 2 != 0)
            throw new HeadroomException(
                $"A head has {o.HiddenSize / o.NumAttentionHeads} dimensions; rotary positions need an even number.",
                "Choose a hidden_size that is an even multiple of num_attention_heads.");
        if (!(o.LearningRate > 0) || !double.IsFinite(o.LearningRate))
            throw new HeadroomException(
                $"The learning rate is {o.LearningRate}.", "Give a positive number such as 2e-3.");
        using var target = OutputTarget.OfFolder(folder, overwrite, "Give another folder.", Files.Contains);
        OutputFolder.Create(target.Temporary, "Give another folder."); // now, not after the training
        double? loss = Train(o, target.Temporary, device, say, progress, stop);
        if (loss != null) target.Commit();
        return loss;
    }

    private static double? Train(
        PretrainOptions o, string folder, IDevice device, Action<string> say,
        Action<string, long, long, string> progress, CancellationToken stop)
    {
        var texts = PretrainCorpus.Generate(o.Notes, o.Seed);
        bool bytes = o.Tokenizer == "byte-level";
        // Label words are ordinary words of the corpus; the prompt's own words are shown to the tokenizer so that it
        // does not spell them.
        IEnumerable<string> learn = texts
            .Append("Review: Sentiment: negative positive")
            .Append("Sentiment: positive")
            .Append("Review: I")
            .Append("Sentiment: negative");
        var bpe = bytes
            ? BpeTrainer.TrainByteLevel(learn, o.VocabSize, [Begin, End])
            : BpeTrainer.TrainSentencePieceStyle(learn, o.VocabSize);
        var tokenizer = TokenizerJson.Load(bpe);
        int bos = tokenizer.TokenToId(bytes ? Begin : "<s>")!.Value,
            eos = tokenizer.TokenToId(bytes ? End : "</s>")!.Value;
        var config = Config(o, tokenizer.VocabSize, bos, eos);
        var rows = new EncodedRow[texts.Count];
        Parallel.For(0, rows.Length, i =>
        {
            int[] ids = [bos, .. tokenizer.Encode(texts[i]), eos];
            rows[i] = new EncodedRow(ids.Length > MaxTokens ? ids[..MaxTokens] : ids, 1);
        });
        int longest = rows.Max(r => r.Ids.Length);
        int most = PreparedRun.BatchTokens(o.BatchSize, longest, "batch");
        var limits = new BatchLimits(most, o.BatchSize, most - o.BatchSize);
        using var engine = new Engine(
            device, config, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Full, LogitsChunk: 512),
            limits);
        engine.FillRandom((ulong)(uint)o.Seed);
        long parameters = engine.Model.Trained.Sum(t => t.Slot.Weight.Count);
        say(
            $"{parameters:N0} parameters, vocabulary {tokenizer.VocabSize}, {rows.Length} notes of "
                + $"{rows.Average(r => r.Ids.Length):F1} tokens on average; planned "
                + $"{engine.Plan.TotalBytes / 1048576.0:F1} MiB"
        );
        var trainer = new Trainer(engine, Training(o), new RowList(rows), longest);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        long tokens = 0;
        double sum = 0;
        int counted = 0;
        bool done = trainer.Run(new TrainerHooks
        {
            OnStep = s =>
            {
                tokens += s.Tokens;
                if (s.Step > trainer.TotalSteps * 9L / 10) (sum, counted) = (sum + s.Loss, counted + 1);
                progress("pretraining", s.Step, trainer.TotalSteps, $"loss {s.Loss:F4}, "
                    + $"{tokens / clock.Elapsed.TotalSeconds:F0} tokens/s");
            },
        }, null, null, stop);
        if (!done) return null;
        SafetensorsWriter.Write(
            Path.Combine(folder, "model.safetensors"),
            engine.Model.Trained.Select(t => (t.Name, "BF16", Shape(t.Slot.Weight), Bf16(engine.Read(t.Slot.Weight)))));
        if (bytes) TokenizerJson.Write(folder, bpe, Begin, End, true);
        else TokenizerJson.Write(folder, bpe);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), HfConfig.Write(config));
        return sum / Math.Max(1, counted);
    }

    private static ModelConfig Config(PretrainOptions o, int vocabulary, int bos, int eos) => new()
    {
        VocabSize = (vocabulary + 63) / 64 * 64,
        HiddenSize = o.HiddenSize,
        IntermediateSize = o.IntermediateSize,
        NumHiddenLayers = o.NumHiddenLayers,
        NumAttentionHeads = o.NumAttentionHeads,
        NumKeyValueHeads = o.NumAttentionHeads,
        HeadDim = o.HiddenSize / o.NumAttentionHeads,
        MaxPositionEmbeddings = 512,
        RmsNormEps = 1e-5f,
        BosTokenId = bos,
        EosTokenIds = [eos],
    };

    private static TrainingOptions Training(PretrainOptions o) => new()
    {
        PerDeviceTrainBatchSize = o.BatchSize,
        LearningRate = o.LearningRate,
        LrSchedulerType = SchedulerType.Cosine,
        WarmupRatio = 0.03,
        NumTrainEpochs = o.Epochs,
        WeightDecay = 0.01,
        AdamBeta2 = 0.95,
        Seed = o.Seed,
        SaveStrategy = IntervalStrategy.No,
    };

    private static long[] Shape(Tensor t) => t.Shape.Rank == 1 ? [t.Count] : [t.Rows, t.Count / t.Rows];

    /// <summary>Rounded to nearest even.</summary>
    private static byte[] Bf16(float[] values)
    {
        var bytes = new byte[2 * values.Length];
        for (int i = 0; i < values.Length; i++)
        {
            uint bits = BitConverter.SingleToUInt32Bits(values[i]);
            BinaryPrimitives.WriteUInt16LittleEndian(
                bytes.AsSpan(2 * i), (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16));
        }
        return bytes;
    }
}
