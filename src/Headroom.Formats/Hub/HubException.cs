using Headroom.Core;

namespace Headroom.Formats.Hub;

/// <summary>What the hub's answer means.</summary>
internal enum HubFault : byte
{
    /// <summary>No such branch, tag or commit.</summary>
    RevisionNotFound,
    /// <summary>No such file in that revision.</summary>
    EntryNotFound,
    /// <summary>The licence has not been accepted.</summary>
    Gated,
    /// <summary>No such repository, or a private one.</summary>
    RepoNotFound,
    /// <summary>The token is invalid or expired.</summary>
    BadToken,
    /// <summary>The repository is disabled.</summary>
    Disabled,
    /// <summary>The token may not read it.</summary>
    Forbidden,
    /// <summary>Too many requests.</summary>
    RateLimited,
    /// <summary>The server failed.</summary>
    Server,
    /// <summary>The proxy failed.</summary>
    Proxy,
    /// <summary>No answer.</summary>
    Unreachable,
    /// <summary>Offline, and not in the cache.</summary>
    Offline,
    /// <summary>An answer that cannot be used, or a file that is not what was announced.</summary>
    Damaged,
}

/// <summary>A fault of a hub request, in the user's terms.</summary>
internal sealed class HubException(HubFault fault, string what, string todo, Exception? inner = null)
    : HeadroomException(what, todo, ExitOf(fault), inner)
{
    /// <summary>What it means.</summary>
    public HubFault Fault { get; } = fault;
    /// <summary>Commit of the revision that was asked, when the answer names it.</summary>
    public string? Commit { get; init; }
    /// <summary>How long the server asks to wait.</summary>
    public TimeSpan? RetryAfter { get; init; }
    /// <summary>Worth another try: 408, 429 and 5xx.</summary>
    public bool IsTransient => Fault is HubFault.RateLimited or HubFault.Server;

    private static int ExitOf(HubFault f) =>
        f is HubFault.Server or HubFault.Proxy or HubFault.Unreachable or HubFault.RateLimited or HubFault.Damaged
            ? 1
            : 2;

    /// <summary>
    /// The fault of an answer (huggingface_hub <c>utils/_http.py</c>); <paramref name="file"/> is what was asked for.
    /// </summary>
    internal static HubException From(HttpResponseMessage r, HubName name, string revision, string file)
    {
        const string badToken = "Invalid credentials in Authorization header";
        string? code = Header(r, "X-Error-Code"),
            message = Header(r, "X-Error-Message"),
            request = Header(r, "X-Request-Id");
        int status = (int)r.StatusCode;
        string kind = name.Kind == HubKind.Model ? "model" : "data set",
            tail = request == null ? "" : $" (request {Plain(request)})";
        HubException Make(HubFault f, string what, string todo) => new(f, what + tail + ".", todo)
        {
            Commit = Header(r, "X-Repo-Commit") is { } c && HubName.Commit().IsMatch(c) ? c : null,
            RetryAfter = r.Headers.RetryAfter is { } wait ? wait.Delta ?? wait.Date - DateTimeOffset.UtcNow : null,
        };
        return (code, status) switch
        {
            ("RevisionNotFound", _) => Make(
                HubFault.RevisionNotFound, $"The {kind} {name.Id} has no revision '{revision}'",
                "Use main, or a branch, tag or commit that it has: org/name@revision."),
            ("EntryNotFound", _) => Make(
                HubFault.EntryNotFound, $"The {kind} {name.Id} has no file {file} in revision '{revision}'",
                "Check the file's name, or name another revision: org/name@revision."),
            ("GatedRepo", _) => Make(
                HubFault.Gated, $"The {kind} {name.Id} is gated: its licence has to be accepted first",
                "Open the model's page in a browser while signed in, accept the terms, then set HF_TOKEN to a token "
                    + "with read access."
            ),
            (_, 401) when message == badToken => Make(
                HubFault.BadToken, $"The hub refuses the token for {name.Id}: HF_TOKEN is invalid or expired",
                "Set HF_TOKEN to a valid token, or unset it for public repositories."),
            _ when message == "Access to this resource is disabled." => Make(
                HubFault.Disabled, $"Access to the {kind} {name.Id} is disabled on the hub", "Use another repository."),
            ("RepoNotFound", _) or (_, 401) => Make(
                HubFault.RepoNotFound, $"The {kind} {name.Id} does not exist on the hub, or is private",
                "Check the spelling org/name; if private, set HF_TOKEN."),
            (_, 403) => Make(
                HubFault.Forbidden, $"The token may not read the {kind} {name.Id}",
                "A fine-grained token needs read access to this repository; change it, or set HF_TOKEN to another."),
            (_, 429) => Make(
                HubFault.RateLimited,
                $"The hub answers 429 for {name.Id}: too many requests",
                "Wait"
                    + (Seconds(r) is { } s ? $" {s} s" : " a while")
                    + ", or set HF_TOKEN: known users have a higher limit."
            ),
            (_, 408 or >= 500) => Make(
                HubFault.Server, $"The hub answers {status} for {file} of {name.Id}", "Try again later."),
            (_, 404) => Make(
                HubFault.EntryNotFound, $"The hub has no {file} of {name.Id} in revision '{revision}'",
                "Check the name and the revision; if HF_ENDPOINT is set, check that too."),
            _ => Make(
                HubFault.Damaged, $"The hub answers {status} for {file} of {name.Id}",
                "If HF_ENDPOINT is set, check it; else try again later."),
        };
    }

    private static int? Seconds(HttpResponseMessage r) =>
        r.Headers.RetryAfter?.Delta is { } d ? (int)Math.Ceiling(d.TotalSeconds) : null;

    private static string? Header(HttpResponseMessage r, string name) =>
        r.Headers.TryGetValues(name, out var v) ? v.FirstOrDefault() : null;

    private static string Plain(string text) => string.Concat(text.Where(c => c is >= ' ' and <= '~').Take(64));
}
