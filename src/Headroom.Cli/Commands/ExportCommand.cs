using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;
using Headroom.Models;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>
/// headroom export: a base, or a base with an adapter merged into it, as a file that other programs read.
/// </summary>
internal static class ExportCommand
{
    private sealed record Options(
        string Model,
        string? Tokenizer,
        string? Adapter,
        string Format,
        string? Type,
        string Out,
        bool? In4bit,
        string[] Prompts,
        bool AcceptLoss,
        bool Overwrite,
        string Device, bool Json);

    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A Hugging Face folder or .gguf file. Example: headroom export models/llama-tiny --adapter "
                    + "runs/reviews/best --format gguf --type q8_0 --out tiny.gguf",
        };
        var adapter = new Option<string?>("--adapter") { Description = "Folder of an adapter (PEFT form) to merge." };
        var format = new Option<string>("--format")
        {
            Description =
                "gguf (one file), safetensors (a Hugging Face folder), adapter (a copy of the adapter) or vocab (the "
                    + "tokenizer alone as GGUF)",
            DefaultValueFactory = _ => "gguf",
        };
        format.AcceptOnlyFromAmong("gguf", "safetensors", "adapter", "vocab");
        var type = new Option<string?>("--type")
        {
            Description =
                "Type of the matrices: f16, q8_0, q4_0, f32 or bf16 (gguf; f16 when absent); bf16, f16 or f32 "
                    + "(safetensors; the base's own 16-bit type when absent).",
        };
        var output = new Option<string>("--out")
        {
            Description = "File (NAME.gguf) or folder to write.",
            Required = true,
        };
        var overwrite = new Option<bool>("--overwrite")
        {
            Description = "Replace a file or folder that is there; it stays whole until the new one is.",
        };
        var tokenizer = new Option<string?>("--tokenizer")
        {
            Description = "The tokenizer, when it does not lie with the model.",
        };
        var in4bit = new Option<bool?>("--load-in-4bit")
        {
            Description =
                "Merge into the NF4 values that the adapter was trained on; absent: as the manifest of the adapter's "
                    + "run says, else no.",
        };
        var prompt = new Option<string[]>("--prompt")
        {
            Description = "A prompt of the check. Repeatable; absent: a few sentences.",
            DefaultValueFactory = _ => [],
        };
        var loss = new Option<bool>("--accept-loss")
        {
            Description =
                "Keep a q4_0 file even where four bits change more of the model's tokens than is taken without a "
                    + "question.",
        };
        var device = new Option<string>("--device")
        {
            Description = "Device of the check: auto, cpu or cuda",
            DefaultValueFactory = _ => "cpu",
        };
        device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        var json = new Option<bool>("--json")
        {
            Description = "Print the result as JSON; progress goes to standard error.",
        };
        var command = new Command(
            "export", "Write a model for other programs, and check the copy against the original.")
            { model, adapter, format, type, output, overwrite, tokenizer, in4bit, prompt, loss, device, json };
        command.SetAction(p =>
            Run(
                new Options(
                    p.GetValue(model)!, p.GetValue(tokenizer), p.GetValue(adapter), p.GetValue(format)!,
                    p.GetValue(type), p.GetValue(output)!, p.GetValue(in4bit), p.GetValue(prompt)!, p.GetValue(loss),
                    p.GetValue(overwrite), p.GetValue(device)!, p.GetValue(json))
            )
        );
        return command;
    }

    private static int Run(Options o)
    {
        using var session = new Session(o.Json);
        using var target = Target(o); // before a model is fetched or read
        o = o with { Model = session.Model(o.Model) };
        string tokenizer = o.Tokenizer ?? o.Model;
        KeepSources(o, target);
        if (o.Format == "adapter")
        {
            if (o.Adapter == null)
                throw new HeadroomException("--format adapter needs --adapter.", "Give the folder of the adapter.");
            var copy = PeftAdapter.Load(o.Adapter);
            if (copy.Initial != null)
            {
                copy = copy.Converted();
                session.Say(
                    $"converted to plain LoRA of rank {copy.R} over the base "
                        + $"itself{(IsQuantized(RunFolder.Of(o.Adapter)?.Manifest.LinearStorage) ? "; over the quantized base it is near to what was trained, not equal" : "")}"
                );
            }
            InPlace(target, folder => copy.Save(folder));
            session.Say($"adapter written to {o.Out}");
            return 0;
        }
        if (o.Format == "vocab")
        {
            string arch =
                File.Exists(Path.Combine(o.Model, "config.json"))
                && HfConfig.Load(Path.Combine(o.Model, "config.json")).Family is var family
                    ? family.GgufArchitecture
                    : "llama";
            var read = TokenizerLoader.Load(tokenizer);
            foreach (string line in read.Notices) session.Say(line);
            var words = GgufVocabulary.Of(tokenizer, read.VocabSize);
            InPlace(target, temporary => GgufExporter.WriteVocabulary(arch, words, temporary));
            session.Say($"vocabulary written to {o.Out}");
            return 0;
        }
        using var original = WeightSources.Open(o.Model);
        var adapter = o.Adapter == null ? null : PeftAdapter.Load(o.Adapter);
        var source = AdapterBase.Of(original, adapter);
        adapter?.CheckBase(source, session.Say);
        bool gguf = o.Format == "gguf";
        string type = o.Type
            ?? (
                gguf ? "f16"
                : source.SourceDType(source.Config.AnyProjectionName()) == DType.F16 ? "f16"
                : "bf16"
            );
        if (gguf ? !GgufExporter.Types.ContainsKey(type) : !CheckpointExporter.Types.ContainsKey(type))
            throw new HeadroomException(
                $"--type {type} is not a type of {o.Format}.",
                $"Use {string.Join(", ", gguf ? GgufExporter.Types.Keys : CheckpointExporter.Types.Keys)}.");
        if (
            gguf
            && source.Config.SlidingWindow is { } window
            && source.Config.SlidingWindow < source.Config.MaxPositionEmbeddings
        )
            session.Say(
                $"note: GGUF has no key for this model's sliding window; llama.cpp attends to more than {window} "
                    + $"positions."
            );
        var storage = Trained(o, session, original) ?? Held(source, adapter);
        using var cpu = storage == null ? null : new CpuDevice();
        using var merged = new MergedSource(source, adapter, storage, cpu?.Ops);
        void Progress(long done, long total)
        {
            session.Token.ThrowIfCancellationRequested();
            session.Progress("export", done, total, "");
        }
        ExportComparison result = null!;
        try
        {
            var words = TokenizerLoader.Load(tokenizer);
            foreach (string line in source.Notices.Concat(words.Notices)) session.Say(line);
            var vocabulary = gguf
                ? GgufVocabulary.Of(tokenizer, source.Config.VocabSize, source.Config.PadTokenId)
                : null;
            // Written and checked under another name: a file that fails is never seen under the one that was asked for.
            InPlace(target, temporary =>
            {
                if (gguf)
                    GgufExporter.Write(
                        merged, vocabulary!, type, temporary, Path.GetFileName(Path.GetFullPath(o.Model).TrimEnd('/')),
                        Progress);
                else CheckpointExporter.Write(merged, o.Model, o.Tokenizer, type, temporary, Progress);
                result = Check(o, session, source, merged, adapter, storage, words, temporary, type);
            });
        }
        catch (OperationCanceledException)
        {
            throw new StoppedException("Run it again; nothing was left behind.");
        }
        session.Say($"written to {o.Out}");
        if (o.Json)
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                path = target.Final,
                format = o.Format,
                type,
                positions = result.Positions,
                largest_logit_difference = result.LargestDifference,
                relative_difference = result.RelativeDifference,
                decided = result.Decided,
                agreeing = result.Agreeing,
                agreement = result.Agreement,
            }));
        return 0;
    }

    /// <summary>
    /// The storage that the adapter was trained on, as the manifest of its run says, when it is not the file's own;
    /// null otherwise.
    /// </summary>
    private static WeightStorage? Trained(Options o, Session session, IWeightSource source)
    {
        var run = o.Adapter == null ? null : RunFolder.Of(o.Adapter);
        if (run is { } of) of.Folder.CheckConfiguration(of.Manifest, source.Config);
        if (source.QuantizedAs(source.Config.AnyProjectionName()) != null)
            return null; // its own values are what it was trained on
        var held = IsQuantized(run?.Manifest.LinearStorage) ? run?.Manifest.LinearStorage : null;
        var storage = o.In4bit switch
        {
            null => held,
            true => held is WeightStorage.NF4 ? held : WeightStorage.NF4Double,
            false => null,
        };
        if (run != null && storage != held)
            session.Say(
                $"note: merged as --load-in-4bit {(o.In4bit == true ? "true" : "false")} asks, though the run trained "
                    + $"on {held?.ToString() ?? "the base's own values"}"
            );
        else if (storage != null) session.Say($"the projections are merged as they were trained: {storage}");
        return storage;
    }

    private static bool IsQuantized(WeightStorage? storage) =>
        storage is WeightStorage.NF4 or WeightStorage.NF4Double or WeightStorage.Int8;

    // What an initialization left of a base in 16 bits was rounded to them again before it was trained on.
    private static WeightStorage? Held(IWeightSource source, PeftAdapter? adapter) => adapter?.Initial == null ? null
            : source.SourceDType(source.Config.AnyProjectionName()) switch
            {
                DType.BF16 => WeightStorage.BF16,
                DType.F16 => WeightStorage.F16,
                _ => null,
            };

    private static ExportComparison Check(
        Options o, Session session, IWeightSource source, MergedSource merged, PeftAdapter? adapter,
        WeightStorage? storage, ITokenizer words, string path, string type)
    {
        // Beyond a sliding window, which GGUF does not hold, the copy is another model; the note says so.
        int most = Math.Min(
            ExportCheck.LongestPrompt,
            Math.Min(
                source.Config.MaxPositionEmbeddings,
                o.Format == "gguf" ? source.Config.SlidingWindow ?? int.MaxValue : int.MaxValue)
        );
        string[] texts = o.Prompts.Length > 0 ? o.Prompts : [.. ExportCheck.Prompts];
        var copied = TokenizerLoader.Load(path);
        var prompts = new List<int[]>();
        foreach (string text in texts)
        {
            int[] ids = words.Encode(text, true);
            if (!ids.AsSpan().SequenceEqual(copied.Encode(text, true)))
                throw new HeadroomException(
                    $"The exported tokenizer gives other ids for {JsonSerializer.Serialize(text)}.",
                    "This is a fault of the export; nothing was kept.", 1);
            if (ids.Length > 0) prompts.Add(ids.Length > most ? ids[..most] : ids);
        }
        if (prompts.Count == 0) throw new HeadroomException("The prompts have no tokens.", "Give --prompt some text.");
        var lora = adapter == null ? null : Checkpoints.SettingsOf(adapter);
        ModelSettings Settings(IWeightSource s, IDevice d, WeightStorage? linear, LoraSettings? l)
        {
            var recipe = new Recipe();
            // on a GPU too: what is compared is weights, not roundings of activations
            recipe.Training.Precision = Precision.Fp32;
            recipe.Quantization.LoadIn4bit = s.QuantizedAs(source.Config.AnyProjectionName()) != null;
            var settings = RunSettings.Of(recipe, s, d) with { Mode = TrainMode.None, Lora = l };
            return linear is { } held ? settings with { LinearStorage = held } : settings;
        }
        using var copy = WeightSources.Open(path);
        var stored =
            o.Format == "gguf"
                ? GgufExporter.Types[type].Type
                : type switch
                {
                    "f32" => GgmlType.F32,
                    "f16" => GgmlType.F16,
                    _ => GgmlType.BF16,
                };
        var c = merged.Config;
        var (error, beyond) = o.Format == "gguf"
                ? ExportCheck.Weights(
                    merged, copy, (name, columns) => GgufExporter.TypeOf(c, name, stored, columns), GgmlType.F32)
            : ExportCheck.Weights(merged, copy, (_, _) => stored, stored);
        if (beyond != null)
            throw new HeadroomException(
                $"{beyond} of the export is further from the model than {type} rounds.",
                "This is a fault of the export; nothing was kept.", 1);
        var device = session.Open(o.Device);
        var reference = ExportCheck.Logits(device, source, Settings(source, device, storage, lora), adapter, prompts);
        device = session.Open(o.Device);
        var exported = ExportCheck.Logits(device, copy, Settings(copy, device, null, null), null, prompts);
        var r = ExportCheck.Compare(reference, exported, c.VocabSize);
        var (difference, agreement) = ExportCheck.Bounds(type, ExportCheck.Rounding(merged));
        session.Say(
            string.Create(
                CultureInfo.InvariantCulture,
                $"check on {r.Positions} positions: weights {error:P2} off, largest logit difference "
                    + $"{r.LargestDifference:G3}, "
            + $"{r.RelativeDifference:G3} of the logits' deviation (at most {difference:G3}), "
                    + $"{r.Agreeing} of {r.Decided} decided tokens agree (at least {agreement:P0}; decided: a lead of "
                    + $"{ExportCheck.Gap})"
            )
        );
        if (r.RelativeDifference <= difference && r.Agreement >= agreement) return r;
        string figures = string.Create(
            CultureInfo.InvariantCulture,
            $"relative logit difference {r.RelativeDifference:G3} (at most {difference:G3}), token agreement "
                + $"{r.Agreement:P1} (at least {agreement:P0})"
        );
        if (!ExportCheck.IsLoss(type, r))
            throw new HeadroomException($"The export is not the model: {figures}.", "Nothing was kept. "
                    + (
                        ExportCheck.Better(type) is { } better
                            ? $"Export with --type {better}."
                            : "No --type is more exact: this is a fault of the export."
                    ),
                1
            );
        if (!o.AcceptLoss)
            throw new HeadroomException(
                $"{type} takes too much of this model: {figures}.",
                "Nothing was kept. Export with --type q8_0, or keep it as it is with --accept-loss.", 1);
        session.Say($"kept by --accept-loss: {figures}");
        return r;
    }

    /// <summary>The place of --out, which fits what the format writes.</summary>
    private static OutputTarget Target(Options o)
    {
        const string another = "Give another --out.";
        string extension = Path.GetExtension(Path.TrimEndingDirectorySeparator(o.Out)).ToLowerInvariant();
        if (o.Format is "gguf" or "vocab")
        {
            // Headroom and others know the file by its name.
            if (extension != ".gguf")
                throw new HeadroomException(
                    $"--format {o.Format} writes one .gguf file, and --out {o.Out} is no name of one.",
                    "Give a name that ends in .gguf.");
            return OutputTarget.OfFile(o.Out, o.Overwrite, another);
        }
        if (extension is ".gguf" or ".safetensors" or ".json" or ".txt" or ".bin")
            throw new HeadroomException(
                $"--format {o.Format} writes a folder, and --out {o.Out} is the name of a file.",
                "Give the name of a folder.");
        return OutputTarget.OfFolder(
            o.Out, o.Overwrite, another, o.Format == "adapter" ? PeftAdapter.IsOwnFile : CheckpointExporter.IsOwnFile);
    }

    // A model may be replaced by a copy of itself. With an adapter merged into it, or its words alone, it would be
    // gone.
    private static void KeepSources(Options o, OutputTarget target)
    {
        bool isCopy = o.Adapter == null && o.Format is ("gguf" or "safetensors");
        if (!isCopy || !target.IsSource(o.Model)) target.KeepOff("the model", o.Model);
        target.KeepOff("the adapter", o.Adapter);
        target.KeepOff("the tokenizer", o.Tokenizer);
    }

    /// <summary>
    /// Lets <paramref name="write"/> make a file or folder under a temporary name, which gets its own when all went
    /// well.
    /// </summary>
    private static void InPlace(OutputTarget target, Action<string> write)
    {
        try
        {
            write(target.Temporary);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException(
                $"Cannot write {target.Final}: {e.Message}", "Choose another folder or free some space.", 1, e);
        }
        target.Commit();
    }
}
