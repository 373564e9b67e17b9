using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Inference.Bases;

/// <summary>The encoded rows of a split.</summary>
/// <param name="Rows">How many.</param>
/// <param name="Hash">SHA-256 over what is trained of them.</param>
internal sealed record SplitIdentity(int Rows, [property: JsonPropertyName("sha256")] string Hash);

/// <summary>
/// manifest.json of a run: what was trained on what, by what. Whatever is done with the run later (resume, eval,
/// export, report) takes it from here, and what differs from it is refused by name.
/// </summary>
internal sealed record RunManifest
{
    /// <summary>Its name in a run's folder.</summary>
    public const string FileName = "manifest.json";

    /// <summary>Name of the run.</summary>
    public required string Name { get; init; }
    /// <summary>Version of Headroom that started it.</summary>
    [JsonRequired]
    public string Headroom { get; init; } = Product.Version;
    /// <summary>The command line, without the program; empty where the library was called.</summary>
    [JsonRequired]
    public IReadOnlyList<string> Command { get; init; } = [];
    /// <summary>When it was started, UTC.</summary>
    [JsonRequired, JsonConverter(typeof(RoundTripTime))]
    public DateTime Created { get; init; } = DateTime.UtcNow;
    /// <summary>The base's name in reports.</summary>
    public required string Model { get; init; }
    /// <summary>Where the base lies: folder or file.</summary>
    public required string ModelPath { get; init; }
    /// <summary>The hub name that it came from, or null.</summary>
    public string? ModelHub { get; init; }
    /// <summary>The tokenizer, where it does not lie with the base.</summary>
    public string? Tokenizer { get; init; }
    /// <summary>SHA-256 of the base's weights.</summary>
    [JsonPropertyName("base_sha256")]
    public required string BaseHash { get; init; }
    /// <summary>What of the base's configuration changes numbers: see <see cref="ConfigIdentity"/>.</summary>
    public required IReadOnlyDictionary<string, string> Config { get; init; }
    /// <summary>Hash of <see cref="Config"/>.</summary>
    [JsonPropertyName("config_sha256")]
    public string ConfigHash => ConfigIdentity.Hash(Config);
    /// <summary>SHA-256 over the keys of the recipe that change numbers.</summary>
    [JsonPropertyName("recipe_sha256")]
    public required string RecipeHash { get; init; }
    /// <summary>The keys of the recipe that are not at their default, with their values.</summary>
    [JsonPropertyName("recipe_values")]
    public required IReadOnlyDictionary<string, string> Recipe { get; init; }
    /// <summary>Name of the device.</summary>
    public required string Device { get; init; }
    /// <summary>Its driver, or null.</summary>
    public string? Driver { get; init; }
    /// <summary>Type of the activations: fp32, bf16 or fp16.</summary>
    public string Precision => Resolved["precision"];
    /// <summary>What auto and null came to: device (cpu or cuda), precision, linear_storage, padded_batches.</summary>
    public required IReadOnlyDictionary<string, string> Resolved { get; init; }
    /// <summary>The encoded rows: train, validation, test.</summary>
    public required IReadOnlyDictionary<string, SplitIdentity> Data { get; init; }
    /// <summary>Seed.</summary>
    public required int Seed { get; init; }
    /// <summary>Updates of the whole run.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>How the projections of the base were held: the values that the adapter was trained on.</summary>
    [JsonIgnore]
    public WeightStorage LinearStorage => Enum.Parse<WeightStorage>(Resolved["linear_storage"]);

    /// <summary>Options that hold the projections of a base as the run did.</summary>
    [JsonIgnore]
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
        ConfigIdentity.CheckSame(folder, Config, ConfigIdentity.List(config), "Give the base as it was.");

    /// <summary>
    /// What a checkpoint of the run names beside the hashes of recipe and base, so that it is told from others without
    /// a manifest.
    /// </summary>
    [JsonIgnore]
    public IReadOnlyDictionary<string, string> Hashes => new SortedDictionary<string, string>(StringComparer.Ordinal)
    {
        ["config"] = ConfigHash,
        ["resolved"] = ConfigIdentity.Hash(Resolved),
        ["train"] = Data["train"].Hash,
        ["validation"] = Data["validation"].Hash,
        ["test"] = Data["test"].Hash,
    };

    /// <summary>The text of the file.</summary>
    public string ToJson()
    {
        var text = new ArrayBufferWriter<byte>();
        using var writer = new Utf8JsonWriter(
            text, new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        JsonSerializer.Serialize(writer, this, ManifestJson.Default.RunManifest);
        return Encoding.UTF8.GetString(text.WrittenSpan) + "\n";
    }

    /// <summary>Writes it, whole or not at all.</summary>
    public void Write(string path) => AtomicFile.WriteText(path, ToJson());

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
            using var json = JsonDocument.Parse(text, new() { AllowDuplicateProperties = false });
            if (!json.RootElement.TryGetProperty("recipe_values", out _)) return null;
            var manifest = json.Deserialize(ManifestJson.Default.RunManifest)!;
            _ = (manifest.LinearStorage, manifest.Hashes); // throws where something lacks
            return manifest;
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw new HeadroomException(
                $"{path} is damaged: {JsonKinds.Fault(e)}",
                "Put the file back from a copy; without it nobody knows what the run was started with.");
        }
    }
}

/// <summary>manifest.json: a reader refuses what lacks or is of another kind.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, RespectNullableAnnotations = true)]
[JsonSerializable(typeof(RunManifest))]
internal sealed partial class ManifestJson : JsonSerializerContext;

/// <summary>A time in UTC with seven digits of a second, as <c>ToString("O")</c> writes it.</summary>
internal sealed class RoundTripTime : JsonConverter<DateTime>
{
    public override DateTime Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options) =>
        DateTime.TryParse(
            reader.GetString(), CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal, out var time)
            ? time : throw new JsonException("created is no time");

    public override void Write(Utf8JsonWriter writer, DateTime value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.ToString("O"));
}
