// Invitations to register.
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";
import type { Page, PageQuery } from "./useKeysetList";

export type Invitation = components["schemas"]["auth.v1.Invitation"];
export type InvitationDraft = Pick<Invitation, "email" | "roles" | "group_ids" | "expire_time">;

export const INVITATIONS = "admin-invitations";

export async function listInvitations(query: PageQuery): Promise<Page<Invitation>> {
  const page = await answerOf(api.GET("/api/v1/invitations", { params: { query } }));
  return { items: page.invitations, next: page.next_page_token };
}

/** The invitation with its link, which is told now and never again. */
export function createInvitation(invitation: InvitationDraft): Promise<Invitation> {
  return answerOf(api.POST("/api/v1/invitations", { body: invitation }));
}

export function revokeInvitation(id: string): Promise<unknown> {
  return answerOf(api.DELETE("/api/v1/invitations/{invitation_id}", { params: { path: { invitation_id: id } } }));
}
