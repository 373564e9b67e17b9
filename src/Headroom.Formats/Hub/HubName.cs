using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Formats.Hub;

/// <summary>What a repository holds; decides its addresses and its folder in the cache.</summary>
internal enum HubKind : byte
{
    /// <summary>A model: no prefix.</summary>
    Model,
    /// <summary>A data set: datasets/.</summary>
    Dataset,
}

/// <summary>A repository at a revision: org/name, or org/name@revision.</summary>
/// <param name="Kind">Model or data set.</param>
/// <param name="Id">org/name.</param>
/// <param name="Revision">Branch, tag or commit; main unless named.</param>
internal sealed partial record HubName(HubKind Kind, string Id, string Revision)
{
    private static readonly string[] FileEndings =
    [
        ".gguf", ".safetensors", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".yaml", ".yml",
        ".bin", ".txt"];

    /// <summary>
    /// True when a text can only be meant as a hub name: org/name, with no file or folder of that path and no folder
    /// org under
    /// <paramref name="folder"/> (null = the working folder). A mistyped local path so stays a local error and asks no
    /// network.
    /// </summary>
    public static bool IsMeant(string text, string? folder = null)
    {
        if (!Shape().IsMatch(text)) return false;
        string id = text.Split('@')[0], path = Path.Combine(folder ?? ".", text);
        if (FileEndings.Any(e => id.EndsWith(e, StringComparison.OrdinalIgnoreCase))) return false;
        return !Path.Exists(path) && !Directory.Exists(Path.Combine(folder ?? ".", id.Split('/')[0]));
    }

    /// <summary>Parses and validates (huggingface_hub <c>utils/_validators.py</c>).</summary>
    /// <exception cref="HeadroomException">The text is no repository name.</exception>
    public static HubName Parse(HubKind kind, string text)
    {
        int at = text.IndexOf('@');
        string id = at < 0 ? text : text[..at], revision = at < 0 ? "main" : text[(at + 1)..];
        bool ok =
            id.Length is > 0 and <= 96
            && id.Count(c => c == '/') <= 1
            && !id.Contains("--")
            && !id.Contains("..")
            && !id.EndsWith(".git", StringComparison.Ordinal)
            && id.Split('/').All(p => Part().IsMatch(p) && p[0] is not ('-' or '.') && p[^1] is not ('-' or '.'));
        if (!ok)
            throw new HeadroomException(
                $"'{id}' is no repository name.",
                "Write it as org/name: letters, digits, '_', '-' and '.', at most 96 characters.");
        if (
            revision.Length is 0 or > 200
            || revision.Contains("..")
            || revision.StartsWith('/')
            || revision.EndsWith('/')
            || revision.Any(c => c is <= ' ' or '\\' or '~' or '^' or ':' or '?' or '*' or '[' or '\x7F')
        )
            throw new HeadroomException(
                $"'{revision}' is no revision of {id}.", "Write a branch, a tag or a commit after '@', such as @main.");
        return new HubName(kind, id, revision);
    }

    /// <summary>True when the revision is a commit hash.</summary>
    public bool IsCommit => Commit().IsMatch(Revision);

    /// <summary>The part after the slash, for reports.</summary>
    public string ShortName => Id[(Id.IndexOf('/') + 1)..];

    /// <summary>Folder in the cache: models--org--name.</summary>
    public string FolderName => (Kind == HubKind.Model ? "models--" : "datasets--") + Id.Replace("/", "--");

    /// <summary>Path of a file below the endpoint.</summary>
    public string ResolvePath(string revision, string file) =>
        $"{(Kind == HubKind.Model ? "" : "datasets/")}{Id}/resolve/{Uri.EscapeDataString(revision)}/{string.Join('/', file.Split('/').Select(Uri.EscapeDataString))}";

    /// <summary>Path of the repository in the API.</summary>
    public string ApiPath => $"api/{(Kind == HubKind.Model ? "models" : "datasets")}/{Id}";

    /// <inheritdoc/>
    public override string ToString() => Revision == "main" ? Id : $"{Id}@{Revision}";

    /// <summary>40 hex digits.</summary>
    [GeneratedRegex("^[0-9a-f]{40}$")]
    internal static partial Regex Commit();
    [GeneratedRegex(@"^[A-Za-z0-9_\-.]+$")]
    private static partial Regex Part();
    [GeneratedRegex(@"^[A-Za-z0-9_][A-Za-z0-9_\-.]*/[A-Za-z0-9_][A-Za-z0-9_\-.]*(@[^\s@]+)?$")]
    private static partial Regex Shape();
}
