using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Training.Runs;

namespace Headroom.Training.Loop;

/// <summary>Where a run stands between two optimizer steps.</summary>
/// <param name="Step">Updates done; also the data position and the RNG counter.</param>
/// <param name="MicroSteps">Micro-batches done; keys the dropout masks.</param>
/// <param name="BestMetric">Best evaluation metric so far, or null.</param>
/// <param name="BestStep">Its step.</param>
/// <param name="RecipeHash">Recipe of the run.</param>
/// <param name="BaseHash">SHA-256 of the base weights.</param>
/// <param name="SkippedSteps">Steps whose update was left out because the gradients were not finite: they count as
/// steps, but neither schedule nor optimizer moved.</param>
/// <param name="LossScale">fp16: where the loss scaling stands; null = not started or not used.</param>
/// <param name="EvaluationDue">The evaluation of this step was cut off by a stop; a resumed run begins with it.</param>
/// <param name="Hashes">What else the run was made with: <see cref="RunManifest.Hashes"/>; null = not noted.</param>
/// <param name="EarlyStoppingCounter">Evaluations in a row that brought nothing better.</param>
internal readonly record struct TrainerState(
    int Step,
    long MicroSteps,
    double? BestMetric,
    int BestStep,
    string RecipeHash,
    string BaseHash,
    int SkippedSteps = 0,
    LossScale? LossScale = null,
    bool EvaluationDue = false,
    IReadOnlyDictionary<string, string>? Hashes = null,
    int EarlyStoppingCounter = 0);

/// <summary>
/// Checkpoints: a temporary directory, fsync, rename; adapter in PEFT form, optimizer moments, trainer_state.json.
/// </summary>
internal static partial class Checkpoints
{
    private const string StateFile = "trainer_state.json"; // written last, with the hashes of the others
    private const string MomentsFile = "optimizer.safetensors";
    private const string SealKey = ",\n  \"sha256\": \"";
    // folders that are being written or deleted; what a kill leaves of them goes with the next save
    private const string Unfinished = ".tmp";
    private const string Replaced = ".old" + Unfinished,
        Deleted = ".gone" + Unfinished; // the one is whole as long as it stands, the other may be half gone

    /// <summary>Folder of a step.</summary>
    public static string Folder(string root, int step) => Path.Combine(root, $"checkpoint-{step}");

    /// <summary>The checkpoint with the highest step, or null.</summary>
    public static string? Latest(string root) => All(root).OrderBy(c => c.Step).Select(c => c.Path).LastOrDefault();

    /// <summary>Whole checkpoints under a folder.</summary>
    public static IReadOnlyList<(int Step, string Path)> All(string root) => !Directory.Exists(root) ? [] :
        Directory.GetDirectories(root).Select(d => (Match: Name().Match(Path.GetFileName(d)), Path: d))
            .Where(d => d.Match.Success && File.Exists(Path.Combine(d.Path, StateFile)))
            .Select(d => (int.Parse(d.Match.Groups[1].Value), d.Path)).OrderBy(d => d.Item1).ToList();

    /// <summary>
    /// Saves adapter, moments and state. The folder is there whole or not at all, after a kill, a full disk or a loss
    /// of power too.
    /// </summary>
    /// <exception cref="HeadroomException">It cannot be written; exit code 1. Checkpoints that were there are there
    /// still.</exception>
    public static string Save(string root, Engine engine, string? baseModel, TrainerState state)
    {
        var files = FileLayer.Current;
        string folder = Folder(root, state.Step), temporary = folder + Unfinished;
        try
        {
            files.MakeFolder(root);
            Restore(root);
            files.CreateFolder(temporary);
            Write(temporary, engine, baseModel, state);
            files.FlushFolder(temporary); // the files are on disk, now their names are
            string? old = Directory.Exists(folder) ? Aside(folder, Replaced) : null;
            files.MoveFolder(temporary, folder);
            files.FlushFolder(root);
            if (old != null) files.DeleteFolder(old); // not before the new one has its name on the disk
            return folder;
        }
        catch (Exception e) when (DiskFault.Find(e) is { } fault)
        {
            files.Discard(temporary);
            if (!Directory.Exists(folder) && Directory.Exists(folder + Replaced)) GiveBack(folder);
            throw new HeadroomException(
                $"The checkpoint {folder} cannot be written: {fault.Message}", "Free some space or mend the disk.", 1,
                fault);
        }
    }

    /// <summary>
    /// Puts a folder of checkpoints in order after a kill: one that was being replaced and has no successor gets its
    /// name back, and what was being written or deleted goes. Only the process that owns the run may call it.
    /// </summary>
    internal static void Restore(string root)
    {
        if (!Directory.Exists(root)) return;
        var files = FileLayer.Current;
        foreach (string left in Directory.GetDirectories(root, "checkpoint-*" + Unfinished))
        {
            string name = left.EndsWith(Replaced, StringComparison.Ordinal) ? left[..^Replaced.Length] : "";
            if (name.Length > 0 && !Directory.Exists(name) && File.Exists(Path.Combine(left, StateFile)))
                files.MoveFolder(left, name);
            else files.DeleteFolder(left);
        }
    }

    private static void GiveBack(string folder)
    {
        try
        {
            FileLayer.Current.MoveFolder(folder + Replaced, folder);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            // the next save or start does it
        }
    }

    private static void Write(string temporary, Engine engine, string? baseModel, TrainerState state)
    {
        engine.Adapter(baseModel, state.BaseHash).Save(temporary);
        SafetensorPart Moment(string name, Tensor t) =>
            new(name, "F32", Engine.Dimensions(t), t.Bytes, file => engine.Read(t, file.Write));
        SafetensorsWriter.Write(Path.Combine(temporary, MomentsFile),
            engine.Model.Trained.SelectMany(t =>
                new[] { Moment(t.Name + ".exp_avg", t.Slot.M), Moment(t.Name + ".exp_avg_sq", t.Slot.V) }
            )
        );
        var files = Directory
            .GetFiles(temporary, "*", SearchOption.AllDirectories)
            .Order(StringComparer.Ordinal)
            .ToDictionary(f => Path.GetRelativePath(temporary, f).Replace('\\', '/'), Sha256);
        var written = new CheckpointState
        {
            BestGlobalStep = state.BestStep,
            BestMetric = state.BestMetric,
            BaseSha256 = state.BaseHash,
            EvaluationDue = state.EvaluationDue,
            EarlyStoppingCounter = state.EarlyStoppingCounter == 0 ? null : state.EarlyStoppingCounter,
            Files = files,
            GlobalStep = state.Step,
            Hashes = state.Hashes,
            MicroSteps = state.MicroSteps,
            LossScale = state.LossScale?.Scale,
            LossScaleGoodSteps = state.LossScale?.GoodSteps,
            RecipeSha256 = state.RecipeHash,
            SkippedSteps = state.SkippedSteps,
        };
        AtomicFile.WriteText(
            Path.Combine(temporary, StateFile),
            Sealed(JsonSerializer.Serialize(written, CheckpointJson.Default.CheckpointState)));
    }

    // The state's own hash is its last field, over the text before it: any other byte is found too.
    private static string Sealed(string json)
    {
        string body = json[..json.LastIndexOf('}')].TrimEnd();
        return $"{body}{SealKey}{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(body)))}\"\n}}\n";
    }

    private static bool IsSealed(string text) =>
        text.LastIndexOf(SealKey, StringComparison.Ordinal) is > 0 and var at && text == Sealed(text[..at] + "}");

    private static CheckpointState Parse(string text) =>
        JsonSerializer.Deserialize(text, CheckpointJson.Default.CheckpointState)
        ?? throw new JsonException("it is null");

    /// <summary>Whether a file of a checkpoint's folder is no part of the adapter in it.</summary>
    internal static bool IsState(string name) => name is StateFile or MomentsFile;

    /// <summary>
    /// The first file of a checkpoint that is missing or is not what was written, or null. Reads every byte.
    /// </summary>
    public static string? Damage(string folder)
    {
        string what = StateFile;
        try
        {
            string text = File.ReadAllText(Path.Combine(folder, StateFile));
            var state = Parse(text);
            if (
                !IsSealed(text)
                || state.GlobalStep != int.Parse(Name().Match(Path.GetFileName(folder)).Groups[1].Value)
            )
                return what;
            foreach (var (file, hash) in state.Files)
                if (Sha256(Path.Combine(folder, what = file)) != hash) return file;
            return null;
        }
        catch (Exception e) when (IsUnreadable(e))
        {
            return what;
        }
    }

    /// <summary>
    /// Refuses a checkpoint whose files are not what was written, and names the newest whole one before it. Reads every
    /// byte.
    /// </summary>
    /// <exception cref="HeadroomException">A file is missing or differs, or the recipe is another.</exception>
    public static void Verify(string folder, string recipeHash)
    {
        if (Damage(folder) is { } file) throw Damaged(folder, file);
        if (ReadState(folder).RecipeHash != recipeHash) throw OtherRecipe(folder);
    }

    private static bool IsUnreadable(Exception e) =>
        Malformed.Is(e) || e is IOException or UnauthorizedAccessException;

    private static HeadroomException Damaged(string folder, string file)
    {
        var older = All(Path.GetDirectoryName(folder) ?? "")
            .TakeWhile(c => Path.GetFileName(c.Path) != Path.GetFileName(folder))
            .Reverse()
            .ToList();
        var (damaged, whole) = (
            older.TakeWhile(c => Damage(c.Path) != null).ToList(),
            older.FirstOrDefault(c => Damage(c.Path) == null).Path);
        string those = string.Join(
            ", ", damaged.Select(c => Path.GetFileName(c.Path)).Prepend(Path.GetFileName(folder)));
        return new($"The checkpoint {folder} is damaged: {file} is not what was written.",
            whole == null ? $"No other is whole: put it back from a copy, or start the run anew under another --name."
                : $"Move {those} out of {Path.GetDirectoryName(folder)}; --resume then goes on from "
                    + $"{Path.GetFileName(whole)}, which is whole."
        );
    }

    private static HeadroomException OtherRecipe(string folder)
    {
        string started = new RunFolder(Path.GetDirectoryName(Path.GetDirectoryName(folder)) ?? "").Recipe;
        return new(
            $"The recipe is not the one that {folder} was made with.",
            $"Resume with that one{(File.Exists(started) ? $", which {started} holds" : "")}, or start a new run "
                + $"under another --name."
        );
    }

    private static string Sha256(string path)
    {
        using var file = File.OpenRead(path);
        return Convert.ToHexStringLower(SHA256.HashData(file));
    }

    /// <summary>Where the run of a checkpoint stands.</summary>
    /// <exception cref="HeadroomException">Its state cannot be read.</exception>
    public static TrainerState ReadState(string folder)
    {
        try
        {
            var state = Parse(File.ReadAllText(Path.Combine(folder, StateFile)));
            return new TrainerState(
                state.GlobalStep, state.MicroSteps, state.BestMetric, state.BestGlobalStep, state.RecipeSha256,
                state.BaseSha256, state.SkippedSteps,
                state.LossScale is { } scale ? new LossScale(scale, state.LossScaleGoodSteps ?? 0) : null,
                state.EvaluationDue, state.Hashes, state.EarlyStoppingCounter ?? 0);
        }
        catch (Exception e) when (IsUnreadable(e))
        {
            throw Damaged(folder, StateFile);
        }
    }

    /// <summary>Restores a checkpoint; refuses one of another recipe or base.</summary>
    public static TrainerState Load(string folder, Engine engine, string recipeHash, string baseHash)
    {
        var state = ReadState(folder);
        if (state.RecipeHash != recipeHash) throw OtherRecipe(folder);
        if (state.BaseHash != baseHash)
            throw new HeadroomException(
                "The base model is not the one that the checkpoint was made with.",
                "Resume with the same base model, or start a new run.");
        engine.LoadAdapter(PeftAdapter.Load(folder));
        using var moments = SafetensorsFile.Open(Path.Combine(folder, MomentsFile));
        foreach (var t in engine.Model.Trained)
        {
            engine.Write(t.Slot.M, moments.ReadF32(t.Name + ".exp_avg"));
            engine.Write(t.Slot.V, moments.ReadF32(t.Name + ".exp_avg_sq"));
        }
        return state;
    }

    /// <summary>SHA-256 over names and values of the trained tensors.</summary>
    public static string TrainedHash(Engine engine)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var t in engine.Model.Trained)
        {
            sha.AppendData(Encoding.UTF8.GetBytes(t.Name));
            engine.Read(t.Slot.Weight, sha.AppendData);
        }
        return Convert.ToHexStringLower(sha.GetHashAndReset());
    }

    /// <summary>
    /// Deletes the oldest beyond the limit; the best one stays, the newest, and the newest that is known to give finite
    /// numbers. 0 = no limit.
    /// </summary>
    /// <param name="root">Folder of checkpoints.</param>
    /// <param name="limit">How many stay.</param>
    /// <param name="bestStep">Step of the best evaluation.</param>
    /// <param name="soundStep">The last step whose weights are known to give finite numbers.</param>
    public static void Prune(string root, int limit, int bestStep, int soundStep)
    {
        if (limit <= 0) return;
        var all = All(root).ToList();
        int sound = all.LastOrDefault(c => c.Step <= soundStep).Step;
        foreach (var (step, path) in all.Take(Math.Max(0, all.Count - limit)))
            if (step != bestStep && step != sound) Remove(path);
    }

    // Renamed first: a kill in the middle must not leave half a checkpoint under its name; nor a loss of power, before
    // which the new name may be forgotten while files are gone.
    private static void Remove(string folder)
    {
        string aside = Aside(folder, Deleted);
        FileLayer.Current.FlushFolder(Path.GetDirectoryName(folder)!);
        FileLayer.Current.DeleteFolder(aside);
    }

    private static string Aside(string folder, string suffix)
    {
        string aside = folder + suffix;
        if (Directory.Exists(aside)) FileLayer.Current.DeleteFolder(aside);
        FileLayer.Current.MoveFolder(folder, aside);
        return aside;
    }

    [GeneratedRegex(@"^checkpoint-(\d{1,9})$")]
    private static partial Regex Name();
}

/// <summary>
/// trainer_state.json but its seal: <see cref="TrainerState"/>, with the hashes of the other files. What is not
/// required earlier versions did not write.
/// </summary>
internal sealed record CheckpointState
{
    public required int BestGlobalStep { get; init; }
    public double? BestMetric { get; init; }
    public required string BaseSha256 { get; init; }
    public bool EvaluationDue { get; init; }
    /// <summary>Absent: 0.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? EarlyStoppingCounter { get; init; }
    /// <summary>SHA-256 of the other files by their path in the folder.</summary>
    public required IReadOnlyDictionary<string, string> Files { get; init; }
    public required int GlobalStep { get; init; }
    public IReadOnlyDictionary<string, string>? Hashes { get; init; }
    public required long MicroSteps { get; init; }
    public double? LossScale { get; init; }
    public int? LossScaleGoodSteps { get; init; }
    public required string RecipeSha256 { get; init; }
    public int SkippedSteps { get; init; }
}

/// <summary>The state of a checkpoint from and to JSON; what lacks is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, WriteIndented = true,
    RespectNullableAnnotations = true)]
[JsonSerializable(typeof(CheckpointState))]
internal sealed partial class CheckpointJson : JsonSerializerContext;
