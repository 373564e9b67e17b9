using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Tokenizers;

namespace Headroom.Cli.Commands;

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
        string Device, bool Json)
    {
        public bool IsGguf => Format == "gguf";
    }

    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A Hugging Face folder, a .gguf file, or a run's folder. Example: headroom export models/llama-tiny "
                    + "--adapter runs/reviews/best --format gguf --type q8_0 --out tiny.gguf",
        };
        var adapter = new Option<string?>("--adapter") { Description = "Folder of an adapter (PEFT form) to merge." };
        var format = CommonOptions.With(
            "--format", "gguf",
            "gguf (one file), safetensors (a Hugging Face folder), adapter (a copy of the adapter) or vocab (the "
                + "tokenizer alone as GGUF)");
        format.AcceptOnlyFromAmong("gguf", "safetensors", "adapter", "vocab");
        var type = CommonOptions.Make<string?>(
            "--type",
            "Type of the matrices: f16, q8_0, q4_0, f32 or bf16 (gguf; f16 when absent); bf16, f16 or f32 "
                + "(safetensors; the base's own 16-bit type when absent).");
        var output = new Option<string>("--out")
        {
            Description = "File (NAME.gguf) or folder to write.",
            Required = true,
        };
        var overwrite = CommonOptions.Make<bool>(
            "--overwrite", "Replace a file or folder that is there; it stays whole until the new one is.");
        var tokenizer = CommonOptions.Make<string?>(
            "--tokenizer", "The tokenizer, when it does not lie with the model.");
        var in4bit = CommonOptions.Make<bool?>(
            "--load-in-4bit",
            "Merge into the NF4 values that the adapter was trained on; absent: as the manifest of the adapter's run "
                + "says, else no.");
        var prompt = new Option<string[]>("--prompt")
        {
            Description = "A prompt of the check. Repeatable; absent: a few sentences.",
            DefaultValueFactory = _ => [],
        };
        var loss = CommonOptions.Make<bool>(
            "--accept-loss",
            "Keep a q4_0 file even where four bits change more of the model's tokens than is taken without a question."
        );
        var device = CommonOptions.With("--device", "cpu", "Device of the check: auto, cpu or cuda");
        device.AcceptOnlyFromAmong("auto", "cpu", "cuda");
        var json = CommonOptions.Json();
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
        if (RunPlace.Find(o.Model) is { } run)
        {
            var of = run.Model(session, o.Adapter);
            o = o with { Model = of.Path, Adapter = of.Adapter, Tokenizer = o.Tokenizer ?? of.TokenizerPath };
        }
        else o = o with { Model = session.Model(o.Model) };
        KeepSources(o, target);
        if (o.Format == "adapter") CopyAdapter(o, session, target);
        else if (o.Format == "vocab") WriteVocabulary(o, session, target);
        else WriteModel(o, session, target);
        return 0;
    }

    private static void CopyAdapter(Options o, Session session, OutputTarget target)
    {
        if (o.Adapter == null)
            throw new HeadroomException("--format adapter needs --adapter.", "Give the folder of the adapter.");
        var copy = PeftAdapter.Load(o.Adapter);
        if (copy.Initial != null)
        {
            copy = copy.Converted();
            bool rounded = IsQuantized(RunManifest.Around(o.Adapter)?.Manifest.LinearStorage);
            session.Say(
                $"converted to plain LoRA of rank {copy.Lora.R} over the base itself"
                    + (rounded ? "; over the quantized base it is near to what was trained, not equal" : "")
            );
        }
        InPlace(target, copy.Save);
        session.Say($"adapter written to {o.Out}");
    }

    private static void WriteVocabulary(Options o, Session session, OutputTarget target)
    {
        string config = Path.Combine(o.Model, "config.json");
        string arch = File.Exists(config) ? HfConfig.Load(config).Family.GgufArchitecture : "llama";
        string tokenizer = o.Tokenizer ?? o.Model;
        var read = TokenizerLoader.Load(tokenizer);
        foreach (string line in read.Notices) session.Say(line);
        var words = GgufVocabulary.Build(tokenizer, read.VocabSize);
        InPlace(target, temporary => GgufExporter.WriteVocabulary(arch, words, temporary));
        session.Say($"vocabulary written to {o.Out}");
    }

    private static void WriteModel(Options o, Session session, OutputTarget target)
    {
        using var model = OpenModel.Open(
            new ModelSource(o.Model) { TokenizerPath = o.Tokenizer, Adapter = o.Adapter }, session.Say);
        model.Check();
        string type = TypeOf(o, model);
        if (o.IsGguf && model.Config.SlidingWindow is { } window && window < model.Config.MaxPositionEmbeddings)
            session.Say(
                $"note: GGUF has no key for this model's sliding window; llama.cpp attends to more than {window} "
                    + $"positions."
            );
        var storage = Trained(o, session, model) ?? Held(model);
        using var cpu = storage == null ? null : new CpuDevice();
        using var merged = new MergedSource(model.Source, model.Adapter, storage, cpu?.Ops);
        ExportComparison result = null!;
        try
        {
            foreach (string line in model.Notices) session.Say(line);
            var write = Writer(o, session, merged, type);
            // Written and checked under another name: a file that fails is never seen under the one that was asked for.
            InPlace(target, temporary =>
            {
                write(temporary);
                result = Check(o, session, model, merged, storage, temporary, type);
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
    }

    /// <summary>The type of the matrices: --type, else f16 of a GGUF file and the base's own of a checkpoint.</summary>
    private static string TypeOf(Options o, OpenModel model)
    {
        string type = o.Type
            ?? (o.IsGguf || model.Source.SourceDType(model.Config.AnyProjectionName()) == DType.F16 ? "f16" : "bf16");
        var types = o.IsGguf ? GgufExporter.Types.Keys : CheckpointExporter.Types.Keys;
        return types.Contains(type)
            ? type
            : throw new HeadroomException(
                $"--type {type} is not a type of {o.Format}.", $"Use {string.Join(", ", types)}.");
    }

    private static Action<string> Writer(Options o, Session session, MergedSource merged, string type)
    {
        void Progress(long done, long total)
        {
            session.Token.ThrowIfCancellationRequested();
            session.Progress("export", done, total, "");
        }
        if (!o.IsGguf)
            return folder => CheckpointExporter.Write(merged, o.Model, o.Tokenizer, type, folder, Progress);
        var c = merged.Config;
        var vocabulary = GgufVocabulary.Build(o.Tokenizer ?? o.Model, c.VocabSize, c.PadTokenId);
        string name = Path.GetFileName(Path.GetFullPath(o.Model).TrimEnd('/'));
        return file => GgufExporter.Write(merged, vocabulary, type, file, name, Progress);
    }

    /// <summary>
    /// The storage that the adapter was trained on, as the manifest of its run says, when it is not the file's own;
    /// null otherwise.
    /// </summary>
    private static WeightStorage? Trained(Options o, Session session, OpenModel model)
    {
        if (model.IsQuantized) return null; // its own values are what it was trained on
        var held = IsQuantized(model.Run?.LinearStorage) ? model.Run?.LinearStorage : null;
        var storage = o.In4bit switch
        {
            null => held,
            true => held is WeightStorage.NF4 ? held : WeightStorage.NF4Double,
            false => null,
        };
        if (model.Run != null && storage != held)
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
    private static WeightStorage? Held(OpenModel model) => model.Adapter?.Initial == null ? null
            : model.Source.SourceDType(model.Config.AnyProjectionName()) switch
            {
                DType.BF16 => WeightStorage.BF16,
                DType.F16 => WeightStorage.F16,
                _ => null,
            };

    /// <summary>The copy against the model: ids of its tokenizer, stored values, logits.</summary>
    private static ExportComparison Check(
        Options o, Session session, OpenModel model, MergedSource merged, WeightStorage? storage, string path,
        string type)
    {
        using var copy = OpenModel.Open(new ModelSource(path));
        var prompts = Prompts(o, model, copy);
        double error = WeightError(o, merged, copy.Source, type);
        List<float[]> Logits(OpenModel of, WeightStorage? linear)
        {
            var device = session.Open(o.Device);
            // on a GPU too: what is compared is weights, not roundings of activations
            var settings = of.Settings(device, Precision.Fp32);
            if (linear is { } held) settings = settings with { LinearStorage = held };
            return ExportCheck.Logits(limits => of.Load(device, settings, limits), merged.Config.VocabSize, prompts);
        }
        var r = ExportCheck.Compare(Logits(model, storage), Logits(copy, null), merged.Config.VocabSize);
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
        if (!(r.RelativeDifference <= difference && r.Agreement >= agreement))
        {
            string figures = string.Create(
                CultureInfo.InvariantCulture,
                $"relative logit difference {r.RelativeDifference:G3} (at most {difference:G3}), token agreement "
                    + $"{r.Agreement:P1} (at least {agreement:P0})"
            );
            Refuse(o, type, r, figures);
            session.Say($"kept by --accept-loss: {figures}");
        }
        return r;
    }

    /// <summary>Ids of the prompts, which both tokenizers must agree on.</summary>
    private static List<int[]> Prompts(Options o, OpenModel model, OpenModel copy)
    {
        // Beyond a sliding window, which GGUF does not hold, the copy is another model; the note says so.
        int window = o.IsGguf ? model.Config.SlidingWindow ?? int.MaxValue : int.MaxValue;
        int most = Math.Min(ExportCheck.LongestPrompt, Math.Min(model.Config.MaxPositionEmbeddings, window));
        var prompts = new List<int[]>();
        foreach (string text in o.Prompts.Length > 0 ? o.Prompts : ExportCheck.Prompts)
        {
            int[] ids = model.Tokenizer.Encode(text, true);
            if (!ids.AsSpan().SequenceEqual(copy.Tokenizer.Encode(text, true)))
                throw new HeadroomException(
                    $"The exported tokenizer gives other ids for {JsonSerializer.Serialize(text)}.",
                    "This is a fault of the export; nothing was kept.", 1);
            if (ids.Length > 0) prompts.Add(ids.Length > most ? ids[..most] : ids);
        }
        return prompts.Count > 0
            ? prompts
            : throw new HeadroomException("The prompts have no tokens.", "Give --prompt some text.");
    }

    /// <summary>How far the stored matrices are off, of which none may be further than its type rounds.</summary>
    private static double WeightError(Options o, MergedSource merged, IWeightSource copy, string type)
    {
        var stored = GgufExporter.Types[type].Type; // a checkpoint's types are among them
        var (error, beyond) = o.IsGguf
            ? ExportCheck.Weights(
                merged, copy, (name, columns) => GgufExporter.TypeOf(merged.Config, name, stored, columns),
                GgmlType.F32)
            : ExportCheck.Weights(merged, copy, (_, _) => stored, stored);
        return beyond == null
            ? error
            : throw new HeadroomException(
                $"{beyond} of the export is further from the model than {type} rounds.",
                "This is a fault of the export; nothing was kept.", 1);
    }

    /// <summary>Throws for a copy beyond its bounds, unless four bits were asked for with what they cost.</summary>
    private static void Refuse(Options o, string type, ExportComparison r, string figures)
    {
        if (!ExportCheck.IsLoss(type, r))
            throw new HeadroomException(
                $"The export is not the model: {figures}.",
                "Nothing was kept. "
                    + (ExportCheck.Better(type) is { } better
                        ? $"Export with --type {better}."
                        : "No --type is more exact: this is a fault of the export."),
                1);
        if (!o.AcceptLoss)
            throw new HeadroomException(
                $"{type} takes too much of this model: {figures}.",
                "Nothing was kept. Export with --type q8_0, or keep it as it is with --accept-loss.", 1);
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
