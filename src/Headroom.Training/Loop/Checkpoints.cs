using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Models;

namespace Headroom.Training;

/// <summary>Where a run stands between two optimizer steps.</summary>
/// <param name="Step">Updates done; also the data position and the RNG counter.</param>
/// <param name="MicroSteps">Micro-batches done; keys the dropout masks.</param>
/// <param name="BestMetric">Best evaluation metric so far, or null.</param>
/// <param name="BestStep">Its step.</param>
/// <param name="RecipeHash">Recipe of the run.</param>
/// <param name="BaseHash">SHA-256 of the base weights.</param>
/// <param name="SkippedSteps">Steps whose update was left out because the gradients were not finite: they count as steps, but neither schedule nor optimizer moved.</param>
/// <param name="LossScale">fp16: where the loss scaling stands; null = not started or not used.</param>
/// <param name="EvaluationDue">The evaluation of this step was cut off by a stop; a resumed run begins with it.</param>
public readonly record struct TrainerState(int Step, long MicroSteps, double? BestMetric, int BestStep, string RecipeHash, string BaseHash, int SkippedSteps = 0, LossScale? LossScale = null, bool EvaluationDue = false);

/// <summary>Checkpoints: a temporary directory, fsync, rename; adapter in PEFT form, optimizer moments, trainer_state.json.</summary>
public static partial class Checkpoints
{
    private const string StateFile = "trainer_state.json"; // written last, with the hashes of the others
    private const string Unfinished = ".tmp"; // folders that are being written or deleted; what a kill leaves of them goes with the next save

    /// <summary>Folder of a step.</summary>
    public static string Folder(string root, int step) => Path.Combine(root, $"checkpoint-{step}");

    /// <summary>The checkpoint with the highest step, or null.</summary>
    public static string? Latest(string root) => All(root).OrderBy(c => c.Step).Select(c => c.Path).LastOrDefault();

    /// <summary>Whole checkpoints under a folder.</summary>
    public static IReadOnlyList<(int Step, string Path)> All(string root) => !Directory.Exists(root) ? [] :
        Directory.GetDirectories(root).Select(d => (Match: Name().Match(Path.GetFileName(d)), Path: d))
            .Where(d => d.Match.Success && File.Exists(Path.Combine(d.Path, StateFile)))
            .Select(d => (int.Parse(d.Match.Groups[1].Value), d.Path)).OrderBy(d => d.Item1).ToList();

    /// <summary>Saves adapter, moments and state.</summary>
    public static string Save(string root, Engine engine, string? baseModel, TrainerState state)
    {
        string folder = Folder(root, state.Step), temporary = folder + Unfinished;
        Directory.CreateDirectory(root);
        foreach (string left in Directory.GetDirectories(root, "checkpoint-*" + Unfinished)) Directory.Delete(left, true);
        Directory.CreateDirectory(temporary);
        Adapter(engine, baseModel, state.BaseHash).Save(temporary);
        SafetensorPart Moment(string name, Tensor t) => new(name, "F32", Dims(t), t.Bytes, file => engine.Read(t, file.Write));
        SafetensorsWriter.Write(Path.Combine(temporary, "optimizer.safetensors"),
            engine.Model.Trained.SelectMany(t => new[] { Moment(t.Name + ".exp_avg", t.Slot.M), Moment(t.Name + ".exp_avg_sq", t.Slot.V) }));
        var files = Directory.GetFiles(temporary, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal).ToDictionary(f => Path.GetRelativePath(temporary, f).Replace('\\', '/'), Sha256);
        AtomicFile.WriteText(Path.Combine(temporary, StateFile), JsonSerializer.Serialize(new
        {
            best_global_step = state.BestStep,
            best_metric = state.BestMetric,
            base_sha256 = state.BaseHash,
            evaluation_due = state.EvaluationDue,
            files,
            global_step = state.Step,
            micro_steps = state.MicroSteps,
            loss_scale = state.LossScale?.Scale,
            loss_scale_good_steps = state.LossScale?.GoodSteps,
            recipe_sha256 = state.RecipeHash,
            skipped_steps = state.SkippedSteps,
        }, new JsonSerializerOptions { WriteIndented = true }) + "\n");
        DirectoryFlush.Run(temporary); // the files are on disk, now their names are
        // The old one of this step goes when the new one has its name: a kill must not leave none.
        string? old = Directory.Exists(folder) ? Aside(folder) : null;
        Directory.Move(temporary, folder);
        DirectoryFlush.Run(root);
        if (old != null) Directory.Delete(old, true);
        return folder;
    }

    /// <summary>Refuses a checkpoint whose files are not what was written, and names the one before it. Reads every byte; checkpoints without recorded hashes pass.</summary>
    /// <exception cref="HeadroomException">A file is missing or differs, or the recipe is another.</exception>
    public static void Verify(string folder, string recipeHash)
    {
        string what = StateFile;
        try
        {
            var json = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, StateFile)))!;
            if ((int)json["global_step"]! != int.Parse(Name().Match(Path.GetFileName(folder)).Groups[1].Value)) throw Damaged(folder, what);
            foreach (var (file, hash) in json["files"]?.AsObject() ?? [])
                if (Sha256(Path.Combine(folder, what = file)) != (string?)hash) throw Damaged(folder, file);
            if ((string?)json["recipe_sha256"] != recipeHash) throw OtherRecipe(folder);
        }
        catch (Exception e) when (IsUnreadable(e))
        {
            throw Damaged(folder, what);
        }
    }

    private static bool IsUnreadable(Exception e) =>
        e is JsonException or NullReferenceException or InvalidOperationException or FormatException or OverflowException or ArgumentException or IOException or UnauthorizedAccessException;

    private static HeadroomException Damaged(string folder, string file)
    {
        string root = Path.GetDirectoryName(folder) ?? "", before = All(root).TakeWhile(c => Path.GetFileName(c.Path) != Path.GetFileName(folder)).LastOrDefault().Path;
        return new($"The checkpoint {folder} is damaged: {file} is not what was written.",
            before == null ? "There is none before it: start the run anew." : $"Delete that folder; --resume then goes on from {Path.GetFileName(before)}.");
    }

    private static HeadroomException OtherRecipe(string folder)
    {
        string run = Path.GetDirectoryName(Path.GetDirectoryName(folder)) ?? "", started = Path.Combine(run, "recipe.yaml");
        return new($"The recipe is not the one that {folder} was made with.", $"Resume with that one{(File.Exists(started) ? $", which {started} holds" : "")}, or start a new run under another --name.");
    }

    private static string Sha256(string path)
    {
        using var file = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(file));
    }

    /// <summary>Restores a checkpoint; refuses one of another recipe or base.</summary>
    public static TrainerState Load(string folder, Engine engine, string recipeHash, string baseHash)
    {
        TrainerState state;
        try
        {
            var json = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, StateFile)))!;
            state = new TrainerState((int)json["global_step"]!, (long)json["micro_steps"]!, (double?)json["best_metric"], (int)json["best_global_step"]!,
                (string)json["recipe_sha256"]!, (string)json["base_sha256"]!, (int?)json["skipped_steps"] ?? 0,
                (double?)json["loss_scale"] is { } scale ? new LossScale(scale, (int?)json["loss_scale_good_steps"] ?? 0) : null,
                (bool?)json["evaluation_due"] ?? false);
        }
        catch (Exception e) when (IsUnreadable(e))
        {
            throw Damaged(folder, StateFile);
        }
        if (state.RecipeHash != recipeHash) throw OtherRecipe(folder);
        if (state.BaseHash != baseHash) throw new HeadroomException("The base model is not the one that the checkpoint was made with.", "Resume with the same base model, or start a new run.");
        LoadAdapter(PeftAdapter.Load(folder), engine);
        using var moments = SafetensorsFile.Open(Path.Combine(folder, "optimizer.safetensors"));
        foreach (var t in engine.Model.Trained)
        {
            engine.Write(t.Slot.M, moments.ReadF32(t.Name + ".exp_avg"));
            engine.Write(t.Slot.V, moments.ReadF32(t.Name + ".exp_avg_sq"));
        }
        return state;
    }

    /// <summary>The adapter of an engine in PEFT form.</summary>
    public static PeftAdapter Adapter(Engine engine, string? baseModel, string baseHash)
    {
        var lora = engine.Settings.Lora ?? throw new InvalidOperationException("no adapter");
        var tensors = engine.Model.AdapterTensors.ToDictionary(t => t.Name, t => (Dims(t.Weight), engine.Read(t.Weight)));
        return new PeftAdapter
        {
            R = lora.R, LoraAlpha = lora.Alpha, LoraDropout = lora.DropoutP, UseRslora = lora.UseRsLora, UseDora = lora.UseDora, ModulesToSave = lora.ModulesToSave,
            EnsureWeightTying = lora.EnsureWeightTying,
            Init = lora.Init, LoftqIterations = lora.LoftqIterations, Initial = engine.Initial, TargetModules = lora.TargetModules, Targets = lora.Targets,
            BaseModel = baseModel, BaseHash = baseHash, Tensors = tensors,
        };
    }

    /// <summary>Model settings that an adapter needs.</summary>
    public static LoraSettings SettingsOf(PeftAdapter adapter) =>
        new(adapter.R, adapter.LoraAlpha, adapter.LoraDropout, adapter.TargetModules, adapter.UseRslora)
        {
            Targets = adapter.Targets, UseDora = adapter.UseDora, ModulesToSave = adapter.ModulesToSave, EnsureWeightTying = adapter.EnsureWeightTying,
            Init = adapter.Init, LoftqIterations = adapter.LoftqIterations,
        };

    /// <summary>Copies an adapter into an engine; every tensor must match in name and shape.</summary>
    public static void LoadAdapter(PeftAdapter adapter, Engine engine)
    {
        adapter = adapter.Over(engine.Model.Config);
        int matched = 0;
        foreach (var (name, tensor) in engine.Model.AdapterTensors)
        {
            if (!adapter.Tensors.TryGetValue(name, out var t)) throw new HeadroomException($"The adapter has no {name}.", "It belongs to another model or other target_modules.");
            if (!t.Shape.SequenceEqual(Dims(tensor))) throw new HeadroomException($"The adapter's {name} is [{string.Join(", ", t.Shape)}], not {tensor.Shape}.", "It belongs to another model or rank.");
            engine.Write(tensor, t.Values);
            matched++;
        }
        if (matched != adapter.Tensors.Count) throw new HeadroomException($"{adapter.Tensors.Count - matched} tensors of the adapter match nothing in the model.", "It belongs to another model.");
    }

    /// <summary>SHA-256 over names and values of the trained tensors.</summary>
    public static string TrainedHash(Engine engine)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var t in engine.Model.Trained)
        {
            sha.AppendData(System.Text.Encoding.UTF8.GetBytes(t.Name));
            engine.Read(t.Slot.Weight, sha.AppendData);
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }

    /// <summary>Deletes the oldest beyond the limit; the best one stays.</summary>
    public static void Prune(string root, int limit, int bestStep)
    {
        if (limit <= 0) return;
        var all = All(root).ToList();
        foreach (var (step, path) in all.Take(Math.Max(0, all.Count - limit)))
            if (step != bestStep) Remove(path);
    }

    // Renamed first: a kill in the middle must not leave half a checkpoint under its name.
    private static void Remove(string folder) => Directory.Delete(Aside(folder), true);

    private static string Aside(string folder)
    {
        string gone = folder + ".old" + Unfinished;
        Directory.Move(folder, gone);
        return gone;
    }

    private static long[] Dims(Tensor t) => t.Shape.Rank == 1 ? [t.Rows] : [t.Rows, t.Columns];

    [GeneratedRegex(@"^checkpoint-(\d{1,9})$")]
    private static partial Regex Name();
}
