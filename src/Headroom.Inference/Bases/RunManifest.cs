using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Inference.Bases;

/// <summary>The encoded rows of a split.</summary>
/// <param name="Rows">How many.</param>
/// <param name="Hash">SHA-256 over what is trained of them.</param>
public sealed record SplitIdentity(int Rows, string Hash);

/// <summary>
/// manifest.json of a run: what was trained on what, by what. Whatever is done with the run later (resume, eval,
/// export, report) takes it from here, and what differs from it is refused by name.
/// </summary>
public sealed record RunManifest
{
    private static readonly JsonSerializerOptions Readable =
        new() { WriteIndented = true, Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Its name in a run's folder.</summary>
    public const string FileName = "manifest.json";

    /// <summary>Name of the run.</summary>
    public required string Name { get; init; }
    /// <summary>Version of Headroom that started it.</summary>
    public string Headroom { get; init; } = Product.Version;
    /// <summary>The command line, without the program; empty where the library was called.</summary>
    public IReadOnlyList<string> Command { get; init; } = [];
    /// <summary>The base's name in reports.</summary>
    public required string Model { get; init; }
    /// <summary>Where the base lies: folder or file.</summary>
    public required string ModelPath { get; init; }
    /// <summary>The hub name that it came from, or null.</summary>
    public string? ModelHub { get; init; }
    /// <summary>The tokenizer, where it does not lie with the base.</summary>
    public string? Tokenizer { get; init; }
    /// <summary>SHA-256 of the base's weights.</summary>
    public required string BaseHash { get; init; }
    /// <summary>What of the base's configuration changes numbers: see <see cref="ConfigIdentity"/>.</summary>
    public required IReadOnlyDictionary<string, string> Config { get; init; }
    /// <summary>SHA-256 over the keys of the recipe that change numbers.</summary>
    public required string RecipeHash { get; init; }
    /// <summary>The keys of the recipe that are not at their default, with their values.</summary>
    public required IReadOnlyDictionary<string, string> Recipe { get; init; }
    /// <summary>What auto and null came to: device (cpu or cuda), precision, linear_storage, padded_batches.</summary>
    public required IReadOnlyDictionary<string, string> Resolved { get; init; }
    /// <summary>Name of the device.</summary>
    public required string Device { get; init; }
    /// <summary>Its driver, or null.</summary>
    public string? Driver { get; init; }
    /// <summary>The encoded rows: train, validation, test.</summary>
    public required IReadOnlyDictionary<string, SplitIdentity> Data { get; init; }
    /// <summary>Seed.</summary>
    public required int Seed { get; init; }
    /// <summary>Updates of the whole run.</summary>
    public required int TotalSteps { get; init; }
    /// <summary>When it was started, UTC.</summary>
    public DateTime Created { get; init; } = DateTime.UtcNow;

    /// <summary>How the projections of the base were held: the values that the adapter was trained on.</summary>
    public WeightStorage LinearStorage => Enum.Parse<WeightStorage>(Resolved["linear_storage"]);

    /// <summary>Options that hold the projections of a base as the run did.</summary>
    public QuantizationOptions Quantization => new()
    {
        LoadIn4bit = LinearStorage is WeightStorage.NF4 or WeightStorage.NF4Double,
        LoadIn8bit = LinearStorage == WeightStorage.Int8,
        Bnb4bitUseDoubleQuant = LinearStorage switch
        {
            WeightStorage.NF4Double => true,
            WeightStorage.NF4 => false,
            _ => null,
        },
    };

    /// <summary>
    /// Refuses a base that is understood otherwise than when the run was trained on it. (Its weights the adapter itself
    /// knows.)
    /// </summary>
    /// <param name="folder">Of the run.</param>
    /// <param name="config">The base that is given.</param>
    /// <exception cref="HeadroomException">The configuration differs, which is named.</exception>
    public void CheckConfiguration(string folder, ModelConfig config) =>
        ConfigIdentity.CheckSame(folder, Config, ConfigIdentity.Of(config), "Give the base as it was.");

    /// <summary>
    /// What a checkpoint of the run names beside the hashes of recipe and base, so that it is told from others without
    /// a manifest.
    /// </summary>
    public IReadOnlyDictionary<string, string> Hashes => new SortedDictionary<string, string>(StringComparer.Ordinal)
    {
        ["config"] = ConfigIdentity.Hash(Config),
        ["resolved"] = ConfigIdentity.Hash(Resolved),
        ["train"] = Data["train"].Hash,
        ["validation"] = Data["validation"].Hash,
        ["test"] = Data["test"].Hash,
    };

    /// <summary>As JSON; run_start carries the same fields.</summary>
    public JsonObject ToJson() => new()
    {
        ["name"] = Name,
        ["headroom"] = Headroom,
        ["command"] = new JsonArray([.. Command.Select(c => (JsonNode?)c)]),
        ["created"] = Created.ToString("O"),
        ["model"] = Model,
        ["model_path"] = ModelPath,
        ["model_hub"] = ModelHub,
        ["tokenizer"] = Tokenizer,
        ["base_sha256"] = BaseHash,
        ["config"] = Object(Config),
        ["config_sha256"] = ConfigIdentity.Hash(Config),
        ["recipe_sha256"] = RecipeHash,
        ["recipe_values"] = Object(Recipe),
        ["device"] = Device,
        ["driver"] = Driver,
        ["precision"] = Resolved["precision"],
        ["resolved"] = Object(Resolved),
        ["data"] = new JsonObject(
                Data.Select(d =>
                    KeyValuePair.Create(
                        d.Key, (JsonNode?)new JsonObject { ["rows"] = d.Value.Rows, ["sha256"] = d.Value.Hash })
                )
            ),
        ["seed"] = Seed,
        ["total_steps"] = TotalSteps,
    };

    /// <summary>Writes it, whole or not at all.</summary>
    public void Write(string path) => AtomicFile.WriteText(path, ToJson().ToJsonString(Readable) + "\n");

    /// <summary>
    /// The run that an adapter's folder lies in (<c>best/</c>, a checkpoint, a copy beside them) with its folder; null
    /// when it lies in none.
    /// </summary>
    /// <exception cref="HeadroomException">The manifest is damaged.</exception>
    public static (string Folder, RunManifest Manifest)? Around(string adapter)
    {
        const int levels = 3; // run/checkpoints/checkpoint-1
        string? place = Path.TrimEndingDirectorySeparator(Path.GetFullPath(adapter));
        for (int i = 0; i < levels && place != null; i++, place = Path.GetDirectoryName(place))
            if (Read(Path.Combine(place, FileName)) is { } manifest) return (place, manifest);
        return null;
    }

    /// <summary>
    /// Reads it; null when there is none, or it is one of a version that did not note what was trained.
    /// </summary>
    /// <exception cref="HeadroomException">It is damaged or cannot be read.</exception>
    public static RunManifest? Read(string path)
    {
        if (!File.Exists(path)) return null;
        string text;
        try
        {
            text = SideFile.ReadText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"{path} cannot be read: {e.Message}", "Make it readable.");
        }
        try
        {
            var json = JsonNode.Parse(text) as JsonObject ?? throw new JsonException("it is no object");
            return json.ContainsKey("recipe_values") ? Of(json) : null;
        }
        catch (Exception e)
            when (e
                    is JsonException
                        or NullReferenceException
                        or InvalidOperationException
                        or FormatException
                        or ArgumentException
                        or KeyNotFoundException
            or OverflowException)
        {
            throw new HeadroomException(
                $"{path} is damaged: {e.Message.Split('\n')[0]}",
                "Put the file back from a copy; without it nobody knows what the run was started with.");
        }
    }

    private static RunManifest Of(JsonObject json)
    {
        var manifest = new RunManifest
        {
            Name = (string)json["name"]!,
            Headroom = (string)json["headroom"]!,
            Command = [.. json["command"]!.AsArray().Select(c => (string)c!)],
            Created = DateTime.Parse(
                (string)json["created"]!, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal),
            Model = (string)json["model"]!,
            ModelPath = (string)json["model_path"]!,
            ModelHub = (string?)json["model_hub"],
            Tokenizer = (string?)json["tokenizer"],
            BaseHash = (string)json["base_sha256"]!,
            Config = Map(json["config"]!),
            RecipeHash = (string)json["recipe_sha256"]!,
            Recipe = Map(json["recipe_values"]!),
            Device = (string)json["device"]!,
            Driver = (string?)json["driver"],
            Resolved = Map(json["resolved"]!),
            Data = json["data"]!
                .AsObject()
                .ToDictionary(d => d.Key, d => new SplitIdentity((int)d.Value!["rows"]!, (string)d.Value["sha256"]!)),
            Seed = (int)json["seed"]!,
            TotalSteps = (int)json["total_steps"]!,
        };
        _ = (manifest.LinearStorage, manifest.Hashes); // throws where something lacks
        return manifest;
    }

    private static JsonObject Object(IReadOnlyDictionary<string, string> map) =>
        new(map.Select(v => KeyValuePair.Create(v.Key, (JsonNode?)v.Value)));

    private static Dictionary<string, string> Map(JsonNode node) =>
        node.AsObject().ToDictionary(v => v.Key, v => (string)v.Value!);
}
